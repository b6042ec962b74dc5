"""``nnpm adapt``: adapt a bundle to a folder of unlabelled audio."""

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
from ...service.inference.card import Decision
from ...service.inference.errors import printable
from ...service.inference.head import Head
from ...service.jobs.folder import AdaptationTask
from ...service.jobs.labels import read_labels
from ..bundle.prototypes import Prototypes
from ..errors import TrainingError
from .config import AdaptConfig
from .decision import MIN_LABELS, Served, adapt_decision, serve
from .evidence import collect_evidence
from .features import Encoder, TargetFeatures, extract_features, with_labels
from .head import Floats, Full, Source, Start, Target
from .publish import Adapted, publish
from .report import (
    AdaptationReport,
    Base,
    Change,
    ChangedClip,
    Clips,
    EmotionChange,
    Estimate,
    Evidence,
)
from .train import adapt_head

Progress = Callable[[str, int, int], None]
"""Called with the stage, the units done and all units of the stage."""

_EXAMPLES = 5  # names of skipped files per reason
_CHANGED = 20  # clips whose answer changed, by name
_FOLDS = 3  # of the labelled recordings


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
    work = _Work(base, start or Start(head_before, base.memory()), target, task, config)
    head = work.adapt(target, clock.stage("adapt"))
    clock.stage("judge")
    evidence, decision = work.judge(head, features)
    before, after = work.before, work.served(head, decision)
    evidence = _consistent(evidence, before, after)
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
        labels=len(target.labelled),
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
        calibrated = len(target.labelled) >= MIN_LABELS and config.calibrate
        publish(task.out, base, Adapted(head, decision, names, calibrated, start), report, config)
        report = report.model_copy(update={"bundle": printable(task.out)})
    return report.model_copy(update={"seconds": clock.seconds()})


class _Work:
    """A base and a target: adaptation and judgement, with the same inputs for both."""

    def __init__(
        self,
        base: Bundle,
        start: Start,
        target: Target,
        task: AdaptationTask,
        config: AdaptConfig,
    ) -> None:
        self.base, self.start, self.target = base, start, target
        self.task, self.config = task, config
        self.source = Source.from_memory(start.memory, config.most_slots)
        self.temperature = base.card.decision.temperature
        self.before = self.served(start.head, base.card.decision)

    def adapt(self, target: Target, on_step: Callable[[int, int], None] | None = None) -> Head:
        return adapt_head(
            self.start.head,
            self.source,
            target,
            self.task.method,
            self.config,
            self.task.seed,
            on_step,
            temperature=self.temperature,
        )

    def served(self, head: Head, decision: Decision) -> Served:
        prototypes = Prototypes.of(head, self.start.memory)
        return serve(self.target.pooled, head, prototypes, decision, self.target.occurs)

    def judge(self, head: Head, features: TargetFeatures) -> tuple[Evidence, Decision]:
        target = self.target
        evidence = collect_evidence(
            self.start.head, head, self.source, target, self.base.labels,
            temperature=self.temperature,
        )  # fmt: skip
        logits = self._cross_fit(features) if len(target.labelled) >= MIN_LABELS else None
        if logits is not None:
            evidence = _with_label_accuracy(evidence, logits, target)
        expected = evidence.estimated_accuracy
        changed = evidence.figures["answers_changed"] > 0 or logits is not None
        prototypes = Prototypes.of(head, self.start.memory)
        return evidence, adapt_decision(
            self.base.card.decision,
            self.before,
            head,
            prototypes,
            target,
            accuracy=expected.value if expected and changed and self.config.calibrate else None,
            cross_fitted=logits if self.config.calibrate else None,
        )

    def _cross_fit(self, features: TargetFeatures) -> Floats:
        """Logits of the labelled clips, each from a head that did not know its label."""
        target = self.target
        recordings = features.clip[target.labelled]
        # recordings in turn, so that all turns of one are in the same fold
        fold = np.unique(recordings, return_inverse=True)[1] % _FOLDS
        logits = np.zeros((len(target.labelled), len(self.base.labels)), np.float32)
        for number in np.unique(fold):
            hidden = np.flatnonzero(fold == number)
            head = self.adapt(target.without_labels(hidden))
            own = target.pooled[target.labelled[hidden]]
            logits[hidden] = head.classify(head.project(head.standardise(own)))
        return logits


def _with_label_accuracy(evidence: Evidence, logits: Floats, target: Target) -> Evidence:
    """Replace the estimated accuracy by that on labelled clips, which is drawn to it.

    The estimate counts as much as its error allows: an error of e is that of about
    ``0.16 / e ** 2`` clips.
    """
    open_ = target.open(logits.shape[1])
    right = np.where(open_, logits, -np.inf).argmax(1) == target.emotion
    count, hits = float(len(right)), float(right.sum())
    if evidence.estimated_accuracy is not None:
        prior_clips = 0.16 / max(evidence.estimated_accuracy.error, 0.01) ** 2
        hits += prior_clips * evidence.estimated_accuracy.value
        count += prior_clips
    value = hits / count
    figures = {**evidence.figures, "labelled_accuracy": float(right.mean())}
    error = float(np.sqrt(max(value * (1 - value), 0.01) / count))
    return evidence.model_copy(
        update={"estimated_accuracy": Estimate(value=value, error=error), "figures": figures}
    )


def _consistent(evidence: Evidence, before: Served, after: Served) -> Evidence:
    """No model is called improved that answers fewer clips than its base."""
    if evidence.verdict != "improved" or after.answered.sum() >= before.answered.sum():
        return evidence
    reason = (
        f"It would answer {after.answered.mean():.1%} of the clips; the base answers "
        f"{before.answered.mean():.1%}."
    )
    return evidence.model_copy(update={"verdict": "no change", "reasons": (reason,)})


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
    return {path: base.labels.index(emotion) for path, emotion in given.items()}
