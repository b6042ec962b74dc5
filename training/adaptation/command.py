"""``nnpm adapt``: adapt a bundle to a folder of unlabelled audio."""

import logging
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...service.files import require_place
from ...service.inference import bundle as bundles
from ...service.inference.audio.formats import PassedOver
from ...service.inference.bundle import SEAL, Bundle
from ...service.inference.errors import printable
from ...service.jobs.folder import AdaptationTask
from ...service.jobs.labels import read_labels
from ..errors import TrainingError
from . import outcome as outcomes
from .config import AdaptConfig
from .decision import MIN_LABELS, Served
from .features import Encoder, TargetFeatures, extract_features, with_labels
from .head import Full, Start
from .outcome import adapt_target
from .publish import Adapted, publish
from .report import (
    AdaptationReport,
    Base,
    Change,
    ChangedClip,
    Clips,
    EmotionChange,
)

Progress = Callable[[str, int, int], None]
"""Called with the stage, the units done and all units of the stage."""

_LOG = logging.getLogger(__name__)
_EXAMPLES = 5  # names of skipped files per reason
_CHANGED = 20  # clips whose answer changed, by name


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
        ParameterError: if the labels cannot be used.
        CorpusError: if a source corpus of ``full`` cannot be read.
        BundleError: if the base cannot be read.
        OldBaseError: if the base is of the first generation.
    """
    _check(task)
    clock = _Clock(progress)
    base = bundles.load(task.bundle)
    head_before = base.head()  # refuses a base of the first generation before any work
    _check_emotions(base, task)
    labels = _labels(base, task)
    start = None
    if full is not None:
        from .full import fine_tune  # torch: an extra of its own

        start = fine_tune(base, task, config, full, clock.stage("fine-tune"))
    graph: Path | bytes = base.path / "model.onnx"
    if start is not None and start.encoder is not None:
        graph = start.encoder.SerializeToString()
    features = extract_features(
        task.target,
        Encoder(graph, config.views, task.seed),
        base.card.window_s,
        config,
        threads=task.threads,
        channels=task.channels,
        on_file=clock.stage("listen"),
    )
    names = task.emotions or base.card.emotions
    target = with_labels(
        features.target(tuple(base.labels.index(name) for name in names)), features, labels
    )
    start = start or Start(head_before, base.memory())
    as_served = None
    if start.heard is not None:
        as_served = outcomes.Base.of(base).serve(
            start.heard, head_before, base.card.decision, target.occurs
        )
    outcome = adapt_target(
        outcomes.Base(base.labels, base.card.decision, start.head, start.memory),
        target,
        task.method,
        config,
        task.seed,
        recordings=features.clip,
        before=as_served,
        on_step=clock.stage("adapt"),
        on_judge=lambda: clock.stage("judge"),
    )
    num_labels = outcomes.num_labels(target, features.clip)
    if lost := len(labels) - num_labels:
        _LOG.warning(
            "%d of the %d labelled recordings are not used: they are skipped, as the report says",
            lost,
            len(labels),
        )
    before, after, evidence = outcome.before, outcome.after, outcome.evidence
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
        labels=num_labels,
        default_emotions=names,
        answered_share=_change(before.answered, after.answered),
        confidence=_change(before.confidence, after.confidence),
        emotions=EmotionChange(
            before=before.emotions(base.labels), after=after.emotions(base.labels)
        ),
        changed=int((before.answers != after.answers).sum()),
        changed_clips=_changed_clips(before, after, base.labels, features),
        verdict=evidence.verdict,
        reasons=evidence.reasons,
        estimated_accuracy=evidence.estimated_accuracy,
        evidence=evidence.figures,
        seconds={},
        bundle=None,
    )
    if evidence.verdict != "reject" or task.force:
        calibrated = num_labels >= MIN_LABELS and config.calibrate
        adapted = Adapted(outcome.head, outcome.decision, names, calibrated, start)
        publish(task.out, base, adapted, report, config)
        report = report.model_copy(update={"bundle": printable(task.out)})
    return report.model_copy(update={"seconds": clock.seconds()})


def _change(before: NDArray[Any], after: NDArray[Any]) -> Change:
    return Change(before=float(before.mean()), after=float(after.mean()))


def _changed_clips(
    before: Served, after: Served, labels: tuple[str, ...], features: TargetFeatures
) -> tuple[ChangedClip, ...]:
    """Some clips whose answer changed, the surest first."""
    changed = np.flatnonzero(before.answers != after.answers)
    surest = changed[np.argsort(-after.confidence[changed], kind="stable")][:_CHANGED]
    return tuple(
        ChangedClip(
            path=printable(features.names[features.clip[index]]),
            before=labels[before.answers[index]],
            after=labels[after.answers[index]],
            confidence=float(after.confidence[index]),
        )
        for index in surest
    )


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
        accepted=len(features.names),
        skipped={reason: len(paths) for reason, paths in skipped},
        examples={reason: tuple(paths[:_EXAMPLES]) for reason, paths in named},
        passed_over={reason: len(names) for reason, names in passed_over.items()},
    )


def _check(task: AdaptationTask) -> None:
    """Check the task before any work."""
    if task.out.exists():
        raise TrainingError(f"{task.out} exists; bundles are not overwritten: choose another --out")
    require_place(task.out)


def _check_emotions(base: Bundle, task: AdaptationTask) -> None:
    if unknown := [name for name in task.emotions if name not in base.labels]:
        raise TrainingError(
            f"emotions has {', '.join(unknown)}; the model knows {', '.join(base.labels)}"
        )


def _labels(base: Bundle, task: AdaptationTask) -> dict[str, int]:
    """Index of the emotion of each labelled recording, by its path."""
    given = {} if task.labels is None else read_labels(task.labels, task.target)
    if unknown := sorted({emotion for emotion in given.values() if emotion not in base.labels}):
        raise TrainingError(
            f"the labels name {', '.join(unknown)}; the model knows {', '.join(base.labels)}"
        )
    occur = task.emotions or base.card.emotions or base.labels
    if outside := sorted(set(given.values()) - set(occur)):
        raise TrainingError(
            f"the labels name {', '.join(outside)}; the emotions that occur are said to be "
            f"{', '.join(occur)}: name all that occur, or correct the labels"
        )
    return {path: base.labels.index(emotion) for path, emotion in given.items()}
