"""``nnpm adapt``: adapt a bundle to a folder of unlabelled audio."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from ...service.files import require_place
from ...service.inference import bundle as bundles
from ...service.inference.audio.formats import PassedOver
from ...service.inference.bundle import SEAL, Bundle, Memory
from ...service.inference.errors import printable
from ...service.jobs.folder import AdaptationTask
from ..bundle.files import restore_network
from ..errors import TrainingError
from ..network.network import Network
from .config import AdaptConfig
from .decision import adapt_decision
from .evidence import collect_evidence
from .features import FeatureViews, TargetFeatures, extract_features, whole_log_mel
from .full import fine_tune, in_memory, load_source
from .head import Source
from .publish import Adapted, publish
from .report import AdaptationReport, Base, Clips
from .train import adapt_head


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Run each torch operation in one thread.

    The operations are small: more threads gain little, are forty times slower (measured) if other
    work uses the cores, and change the rounding.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


Progress = Callable[[str, int, int], None]
"""Called with the stage, the units done and all units of the stage."""

_EXAMPLES = 5  # names of skipped files per reason


@dataclass(frozen=True, slots=True)
class Full:
    """The additional inputs of ``--full``.

    Attributes:
        source: holds one folder per source corpus, or is the one corpus.
        corpora: their names; empty for those in the base's card.
        cache: for decoded clips.
    """

    source: Path
    corpora: tuple[str, ...]
    cache: Path


@one_torch_thread()
def adapt(
    task: AdaptationTask,
    config: AdaptConfig,
    progress: Progress = lambda *_: None,
    *,
    full: Full | None = None,
) -> AdaptationReport:
    """Adapt, collect evidence, and write the bundle unless the verdict is reject.

    The same task gives the same bundle on the same machine, except for the time in its card and
    README, which ``SOURCE_DATE_EPOCH`` sets.

    Args:
        task: the base, the target, the method, and the folder of the new bundle.
        config: the settings of adaptation and method.
        progress: called as the work goes on.
        full: fine-tune the whole network first; None adapts the head only.

    Returns:
        The report; its ``bundle`` is None if no bundle was written.

    Raises:
        TrainingError: if the task cannot be carried out; nothing is written then.
        CorpusError: if a source corpus of ``full`` cannot be read.
        BundleError: if the base cannot be read.
    """
    _check(task)
    clock = _Clock(progress)
    base = bundles.load(task.bundle)
    network, memory = restore_network(base), base.memory()
    if full is not None:
        network, memory = _fine_tune(task, config, full, base, network, clock)
    features = extract_features(
        task.target,
        FeatureViews(network, config.views, task.seed),
        base.card,
        config,
        threads=task.threads,
        on_file=clock.stage("listen"),
    )
    source, target = Source.from_memory(memory), features.target()
    head = adapt_head(
        network.head, source, target, task.method, config, task.seed, clock.stage("adapt")
    )
    clock.stage("judge")
    evidence = collect_evidence(network.head, head, source, target, base.labels)
    decision = adapt_decision(
        base.card.decision, head, source, target, base.labels, evidence, config
    )
    clock.stage("publish")
    report = AdaptationReport(
        method=task.method,
        full=full is not None,
        seed=task.seed,
        language=task.language,
        base=Base(
            version=printable(base.path.resolve().name),
            digest=(base.path / SEAL).read_text("ascii")[:64],
        ),
        clips=_clips(features, task.passed_over),
        windows=len(target.pooled),
        evidence=evidence.figures,
        seconds={},
        bundle=None,
        **evidence.model_dump(exclude={"figures"}),
    )
    if evidence.verdict != "reject" or task.force:
        adapted = Adapted(network, memory, head, decision)
        publish(task.out, base, adapted, report, config, features.examples)
        report = report.model_copy(update={"bundle": printable(task.out)})
    return report.model_copy(update={"seconds": clock.seconds()})


def _fine_tune(
    task: AdaptationTask,
    config: AdaptConfig,
    full: Full,
    base: Bundle,
    network: Network,
    clock: "_Clock",
) -> tuple[Network, Memory]:
    """Fine-tune the whole network, and build the memory again with the result."""
    front_end = network.front_end
    audio = load_source(full.source, full.corpora, base.card, network, full.cache)
    clips = extract_features(
        task.target,
        lambda samples: whole_log_mel(front_end, samples)[0][0, 0].T.half(),
        base.card,
        config,
        threads=task.threads,
        on_file=clock.stage("decode"),
    )
    tuned = fine_tune(
        network,
        audio,
        in_memory(clips.rows),
        task.method,
        config,
        task.seed,
        clock.stage("fine-tune"),
    )
    return tuned, audio.memory(tuned)


class _Clock:
    """Passes on progress by stage, and measures the time of each stage."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.starts: dict[str, float] = {}

    def stage(self, name: str) -> Callable[[int, int], None]:
        self.starts[name] = time.perf_counter()
        return partial(self.progress, name)

    def seconds(self) -> dict[str, float]:
        ends = [*self.starts.values(), time.perf_counter()][1:]
        return {
            name: round(end - start, 3)
            for (name, start), end in zip(self.starts.items(), ends, strict=True)
        }


def _clips(features: TargetFeatures, in_archive: PassedOver) -> Clips:
    skipped = sorted(features.skipped.items())
    passed_over = {reason: list(names) for reason, names in in_archive.items()}
    for reason, names in features.passed_over.items():
        passed_over.setdefault(reason, []).extend(names)
    named = [*skipped, *passed_over.items()]
    return Clips(
        accepted=features.accepted,
        skipped={reason: len(paths) for reason, paths in skipped},
        examples={reason: tuple(paths[:_EXAMPLES]) for reason, paths in named},
        passed_over={reason: len(names) for reason, names in passed_over.items()},
    )


def _check(task: AdaptationTask) -> None:
    """Check the task before any work."""
    if task.out.exists():
        raise TrainingError(f"{task.out} exists; bundles are not overwritten: choose another --out")
    require_place(task.out)
