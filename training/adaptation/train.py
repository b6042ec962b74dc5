"""The training loop that all methods share: source replay, target clips in views, and steps."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import autograd.numpy as anp
import numpy as np
from autograd import value_and_grad

from ...service.inference.head import Head
from ..errors import TrainingError
from .config import AdaptConfig
from .head import Floats, Ints, Source, Target
from .methods import PLUGINS
from .methods.adabn import with_prior_aware_statistics
from .methods.method import CLOSED, Batch, Method, log_softmax, softmax

Weights = dict[str, Floats]
_HEAD = ("weight", "bias", "classes")


def adapt_head(
    head: Head,
    source: Source,
    target: Target,
    method: str,
    config: AdaptConfig,
    seed: int,
    on_step: Callable[[int, int], None] | None = None,
    *,
    temperature: float = 1.0,
) -> Head:
    """Adapt a head to target clips without labels, or with a few.

    Each step lowers ``replay_weight * CE(new head, old head's answers; source) + ramp * method's
    loss + label_weight * CE(new head, given labels)``. Replay by distillation keeps the head's
    answers on the source; replay by the labels would continue to fit the source. The result is the
    mean of the weights over the last steps, and over ``heads`` runs with other draws.

    Args:
        head: of the bundle; it is not changed.
        source: the bundle's memory.
        target: the clips.
        method: a name in :data:`nnpm.training.adaptation.methods.METHODS`, of an installed
            package's method, or ``package.module:Class``.
        config: steps, batches, weights.
        seed: of all draws.
        on_step: called after every step with the steps taken and the steps in all.
        temperature: of the bundle's decision; methods that read probabilities divide logits by it.

    Returns:
        The adapted head; the same for the same seed.

    Raises:
        TrainingError: if there is no such method, or training ends in weights that are not finite.
    """
    kind = PLUGINS.find(method)
    moved = head
    if kind.target_statistics:
        rng = np.random.default_rng(0)  # the same statistics for every seed
        moved = with_prior_aware_statistics(head, source, target, config, rng, temperature)
    few = len(target.pooled) < config.few_clips and not len(target.labelled)
    if not kind.trains or not config.steps or few:
        return moved
    runs = []
    for number in range(config.heads):
        rng = np.random.default_rng([seed, number])
        start = replace(moved, classes=moved.classes.copy())
        learner = kind(config, source, target, start, rng, temperature)
        before = number * config.steps
        report = None if on_step is None else _shifted(on_step, before, config.heads * config.steps)
        runs.append(_train(start, learner, rng, report))
    means: Weights = {name: np.stack([run[name] for run in runs]).mean(0) for name in _HEAD}
    return _with(moved, means)


def _shifted(
    on_step: Callable[[int, int], None], before: int, total: int
) -> Callable[[int, int], None]:
    return lambda done, _: on_step(before + done, total)


def _train(
    head: Head,
    method: Method,
    rng: np.random.Generator,
    on_step: Callable[[int, int], None] | None,
) -> Weights:
    """Train a head that has the target's statistics; gives the averaged weights."""
    config = method.config
    data = _Data(config, method.source, method.target, head)
    replayed = softmax(head.classify(head.project(method.source.features)))
    weights: Weights = {**{n: getattr(head, n) for n in _HEAD}, **method.parameters()}
    descent = Adam(config.learning_rate, config.weight_decay)
    first = min(config.steps - 1, round(config.steps * (1.0 - config.averaged_share)))
    total = {name: np.zeros_like(weights[name]) for name in _HEAD}
    for step in range(config.steps):
        if step % config.refresh_steps == 0:
            method.refresh(_with(head, weights))
        drawn = data.draw(rng)
        ramp = min(1.0, step / config.ramp_steps) if config.ramp_steps else 1.0
        progress = step / config.steps

        def objective(
            weights: Weights, drawn: "Draw" = drawn, ramp: float = ramp, progress: float = progress
        ) -> Any:
            batch = _run(weights, head.scale, drawn, data.closed)
            loss = config.replay_weight * _cross_entropy(batch.source_logits, replayed[drawn.slots])
            loss = loss + ramp * method.loss(batch, progress, weights)
            if len(drawn.labelled):
                logits = classify(weights, head.scale, project(weights, drawn.labelled))
                given = np.eye(logits.shape[1], dtype=np.float32)[method.target.emotion]
                loss = loss + config.label_weight * _cross_entropy(logits, given)
            return loss

        _, slope = value_and_grad(objective)(weights)
        weights = descent.step(weights, slope)
        if step >= first:
            for name in _HEAD:
                total[name] += weights[name]
        if on_step is not None:
            on_step(step + 1, config.steps)
    if not all(np.isfinite(weight).all() for weight in weights.values()):
        raise TrainingError(
            f"{method.name} diverged: its weights are not finite; "
            f"lower learning_rate ({config.learning_rate:g}) or the method's weights"
        )
    return {name: value / np.float32(config.steps - first) for name, value in total.items()}


def project(weights: Mapping[str, Any], standard: Floats) -> Any:
    """Standardised features to z on the unit sphere, as the head does, with a gradient."""
    projected = anp.dot(standard, weights["weight"].T) + weights["bias"]
    return projected / anp.sqrt(anp.sum(projected**2, axis=1, keepdims=True) + np.float32(1e-12))


def classify(weights: Mapping[str, Any], scale: np.float32, projection: Any) -> Any:
    """Unit features z to logits, with a gradient; only the direction of a class counts."""
    classes = weights["classes"]
    unit = classes / anp.sqrt(anp.sum(classes**2, axis=1, keepdims=True) + np.float32(1e-12))
    return scale * anp.dot(projection, unit.T)


def _cross_entropy(logits: Any, shares: Floats) -> Any:
    return -anp.sum(shares * log_softmax(logits)) / len(shares)


def _with(head: Head, weights: Mapping[str, Floats]) -> Head:
    """The head with trained weights, its classes at unit length."""
    classes = weights["classes"]
    length = np.maximum(np.linalg.norm(classes, axis=1, keepdims=True), np.float32(1e-12))
    return replace(head, weight=weights["weight"], bias=weights["bias"], classes=classes / length)


class Adam:
    """Adam with decoupled weight decay, in float32.

    References:
        Kingma & Ba, arXiv 1412.6980; Loshchilov & Hutter (AdamW), arXiv 1711.05101.
    """

    def __init__(self, rate: float, decay: float) -> None:
        self._rate, self._decay = np.float32(rate), np.float32(rate * decay)
        self._count = 0
        self._moments: dict[str, tuple[Floats, Floats]] = {}

    def step(self, weights: Weights, slope: Mapping[str, Floats]) -> Weights:
        """The weights after one step; the given ones are not changed."""
        self._count += 1
        first_share, second_share = np.float32(0.9), np.float32(0.999)
        one = np.float32(1.0)
        rate = self._rate * np.float32(np.sqrt(1.0 - 0.999**self._count) / (1.0 - 0.9**self._count))
        moved = {}
        for name, value in weights.items():
            g = slope[name]
            first, second = self._moments.get(name) or (np.zeros_like(g), np.zeros_like(g))
            first = first_share * first + (one - first_share) * g
            second = second_share * second + (one - second_share) * g * g
            self._moments[name] = first, second
            change = rate * first / (np.sqrt(second) + np.float32(1e-8))
            moved[name] = value - change - self._decay * value
        return moved


@dataclass(frozen=True, slots=True, eq=False)
class Draw:
    """What one step works on: places and standardised features.

    Attributes:
        slots: of the source, int64, as many of each emotion.
        clips: of the target, int64.
        source: shape ``(len(slots), D)``.
        target: of one view, shape ``(len(clips), D)``.
        emotion: of the slots.
        labelled: all clips with a given label in one view, shape ``(num_labels, D)``.
    """

    slots: Ints
    clips: Ints
    source: Floats
    target: Floats
    emotion: Ints
    labelled: Floats


def _run(weights: Mapping[str, Any], scale: np.float32, drawn: Draw, closed: Floats) -> Batch:
    """Run the head on both sides of a draw."""
    source, target = project(weights, drawn.source), project(weights, drawn.target)
    return Batch(
        source_index=drawn.slots,
        source_projection=source,
        source_logits=classify(weights, scale, source),
        source_emotion=drawn.emotion,
        target_index=drawn.clips,
        target_projection=target,
        target_logits=classify(weights, scale, target) + closed,
    )


class _Data:
    """Draws batches: as many source clips of each emotion, and target clips in one view."""

    def __init__(self, config: AdaptConfig, source: Source, target: Target, head: Head) -> None:
        self.source, self.target = source, target
        self.slots = [np.flatnonzero(source.emotion == e) for e in np.unique(source.emotion)]
        self.per_emotion = max(1, config.source_batch // len(self.slots))
        self.num_target = min(config.target_batch, len(target.pooled))
        self.views = [head.standardise(view) for view in (target.pooled, *target.views)]
        open_ = target.open(len(head.classes))
        self.closed = np.where(open_, 0.0, CLOSED).astype(np.float32)

    def draw(self, rng: np.random.Generator) -> Draw:
        slots = np.concatenate([s[rng.integers(len(s), size=self.per_emotion)] for s in self.slots])
        clips = rng.permutation(len(self.target.pooled))[: self.num_target]
        view = self.views[rng.integers(len(self.views))]
        return Draw(
            slots=slots,
            clips=clips,
            source=self.source.features[slots],
            target=view[clips],
            emotion=self.source.emotion[slots],
            labelled=view[self.target.labelled],
        )
