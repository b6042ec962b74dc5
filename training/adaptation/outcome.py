"""From a bundle and target features to an adapted head, its decision, its evidence, its answers.

The command and the benchmark both run this.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np

from ...service.inference.bundle import Bundle, Memory
from ...service.inference.card import Decision
from ...service.inference.head import Head
from ..bundle.prototypes import Prototypes
from .config import AdaptConfig
from .decision import MIN_LABELS, Served, adapt_decision, serve
from .evidence import collect_evidence
from .head import Floats, Ints, Source, Target
from .methods import PLUGINS
from .report import Estimate, Evidence
from .train import adapt_head

_FOLDS = 3  # of the labelled recordings


@dataclass(frozen=True, slots=True, eq=False)
class Base:
    """What adaptation takes from a bundle, read once.

    Attributes:
        labels: emotions in the order of the logits.
        decision: of its card.
        head: of the bundle.
        memory: of the bundle.
    """

    labels: tuple[str, ...]
    decision: Decision
    head: Head
    memory: Memory

    @classmethod
    def of(cls, bundle: Bundle) -> Self:
        """Read head and memory."""
        return cls(bundle.labels, bundle.card.decision, bundle.head(), bundle.memory())

    def serve(
        self, pooled: Floats, head: Head, decision: Decision, occurs: tuple[int, ...] = ()
    ) -> Served:
        """Answer clips as a bundle with this head and decision does.

        Args:
            pooled: h, shape ``(clips, D)``.
            head: the base's, or an adapted one.
            decision: that belongs to it.
            occurs: indices of the emotions that may be answered; all if empty.
        """
        return serve(pooled, head, Prototypes.of(head, self.memory), decision, occurs)


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """The result of an adaptation.

    Attributes:
        head: after adaptation, with the target's statistics.
        decision: of the bundle that would be published.
        evidence: the verdict, and what it rests on.
        before: the base's answers to the target's clips.
        after: the adapted model's.
    """

    head: Head
    decision: Decision
    evidence: Evidence
    before: Served
    after: Served


def adapt_target(
    base: Base,
    target: Target,
    method: str,
    config: AdaptConfig,
    seed: int,
    *,
    recordings: Ints | None = None,
    before: Served | None = None,
    on_step: Callable[[int, int], None] | None = None,
    on_judge: Callable[[], object] = lambda: None,
) -> Outcome:
    """Adapt a head, judge it without labels (or with a few), and fit its decision.

    Args:
        base: the bundle.
        target: its clips.
        method: by name.
        config: of the adaptation.
        seed: of all draws.
        recordings: which recording each clip is of, shape ``(clips,)``; None: each of its own.
        before: what the bundle as served answers, if ``base`` is not it but a network that was
            fine-tuned from it.
        on_step: called after every step with the steps taken and the steps in all.
        on_judge: called when the last step is done.

    Raises:
        TrainingError: if there is no such method, or training diverges.
    """
    source = Source.from_memory(base.memory, config.most_slots)

    def adapted(clips: Target, on_step: Callable[[int, int], None] | None = None) -> Head:
        return adapt_head(
            base.head, source, clips, method, config, seed, on_step,
            temperature=base.decision.temperature,
        )  # fmt: skip

    head = adapted(target, on_step)
    on_judge()
    evidence = collect_evidence(
        base.head, head, source, target, base.labels, temperature=base.decision.temperature
    )
    follows = PLUGINS.find(method).follows_shares
    logits = None
    if num_labels(target, recordings) >= MIN_LABELS:
        logits = _cross_fit(adapted, target, recordings, len(base.labels))
        evidence = _with_label_accuracy(evidence, logits, target)
    if before is None:
        before = base.serve(target.pooled, base.head, base.decision, target.occurs)
    expected = evidence.estimated_accuracy
    changed = evidence.figures["answers_changed"] > 0 or logits is not None
    decision = adapt_decision(
        base.decision,
        before,
        head,
        Prototypes.of(head, base.memory),
        target,
        prior=None if head is base.head or follows else config.prior,
        accuracy=expected.value if expected and changed and config.calibrate else None,
        cross_fitted=logits if config.calibrate else None,
    )
    after = base.serve(target.pooled, head, decision, target.occurs)
    return Outcome(head, decision, _consistent(evidence, before, after), before, after)


def num_labels(target: Target, recordings: Ints | None) -> int:
    """Labelled recordings: a long one has many turns, and says no more of others for that.

    Examples:
        >>> pooled = np.zeros((4, 2), np.float32)
        >>> target = Target(pooled, pooled[None], (), np.array([0, 1, 2]), np.array([1, 1, 0]))
        >>> num_labels(target, np.array([0, 0, 1, 2]))
        2
    """
    own = target.labelled if recordings is None else recordings[target.labelled]
    return len(np.unique(own))


def _cross_fit(
    adapted: Callable[[Target], Head], target: Target, recordings: Ints | None, num_emotions: int
) -> Floats:
    """Logits of the labelled clips, each from a head that did not know its label."""
    own = target.labelled if recordings is None else recordings[target.labelled]
    # recordings in turn, so that all turns of one are in the same fold
    fold = np.unique(own, return_inverse=True)[1] % _FOLDS
    logits = np.zeros((len(own), num_emotions), np.float32)
    for number in np.unique(fold):
        hidden = np.flatnonzero(fold == number)
        head = adapted(target.without_labels(hidden))
        clips = target.pooled[target.labelled[hidden]]
        logits[hidden] = head.classify(head.project(head.standardise(clips)))
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
