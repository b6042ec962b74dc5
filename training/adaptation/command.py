"""``nnpm adapt``: a bundle and a folder of unlabelled audio to a better bundle."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from ...service.files import require_place
from ...service.inference import bundle as bundles
from ...service.inference.bundle import SEAL, Bundle, Memory
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
    """Compute each operation in one thread.

    They are small here: more threads gain little, wait for one another where the cores are shared
    with other work (measured: forty times slower), and change the rounding.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


Progress = Callable[[str, int, int], None]
"""Called with the stage, what is done of it, and all that there is to do."""

_EXAMPLES = 5  # names of skipped files per reason


@dataclass(frozen=True, slots=True)
class Full:
    """What ``--full`` needs besides.

    Attributes:
        source: holds one folder per source corpus, or is the one corpus.
        corpora: their names; empty for those that the base's card names.
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
    """Adapt, judge, and write the bundle unless the evidence says reject.

    Args:
        task: what to adapt to what, and where the bundle goes.
        config: all numbers of the methods.
        progress: called while it works.
        full: move the whole network first; None adapts the head alone.

    The same task gives the same bundle on the same machine, but for the hour in its card and its
    README, which ``SOURCE_DATE_EPOCH`` sets.

    Raises:
        TrainingError: if the task cannot be carried out; nothing is written then.
        BundleError: if the base cannot be read.
    """
    _check(task)
    clock = _Clock(progress)
    base = bundles.load(task.bundle)
    network, memory = restore_network(base), base.memory()
    if full is not None:
        network, memory = _move(task, config, full, base, network, clock)
    heard = extract_features(
        task.target,
        FeatureViews(network, config.views, task.seed),
        base.card,
        config,
        threads=task.threads,
        on_file=clock.stage("listen"),
    )
    source, target = Source.from_memory(memory), heard.target()
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
            version=base.path.resolve().name, digest=(base.path / SEAL).read_text("ascii")[:64]
        ),
        clips=_clips(heard),
        windows=len(target.pooled),
        evidence=evidence.figures,
        seconds={},
        bundle=None,
        **evidence.model_dump(exclude={"figures"}),
    )
    if evidence.verdict != "reject" or task.force:
        adapted = Adapted(network, memory, head, decision)
        publish(task.out, base, adapted, report, config, heard.examples)
        report = report.model_copy(update={"bundle": str(task.out)})
    return report.model_copy(update={"seconds": clock.seconds()})


def _move(
    task: AdaptationTask,
    config: AdaptConfig,
    full: Full,
    base: Bundle,
    network: Network,
    clock: "_Clock",
) -> tuple[Network, Memory]:
    """Fine-tune the whole network; the memory is made anew by the one that comes out."""
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
    moved = fine_tune(
        network,
        audio,
        in_memory(clips.rows),
        task.method,
        config,
        task.seed,
        clock.stage("fine-tune"),
    )
    return moved, audio.memory(moved)


class _Clock:
    """Tells progress by stage, and what each stage took."""

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


def _clips(heard: TargetFeatures) -> Clips:
    skipped = sorted(heard.skipped.items())
    return Clips(
        accepted=heard.accepted,
        skipped={reason: len(paths) for reason, paths in skipped},
        examples={reason: tuple(paths[:_EXAMPLES]) for reason, paths in skipped},
    )


def _check(task: AdaptationTask) -> None:
    """Find what is wrong before any work."""
    if task.out.exists():
        raise TrainingError(f"{task.out} exists, and bundles are not overwritten")
    require_place(task.out)
