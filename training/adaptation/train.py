"""The training loop that all methods share: source replay, target clips in views, and steps."""

from collections.abc import Callable

import torch
from torch import Tensor

from ..errors import TrainingError
from ..network.head import Head
from ..network.memory import soft_cross_entropy
from .config import AdaptConfig
from .head import AdaptedHead, Source, Target
from .methods import METHODS
from .methods.method import Batch, Method


def adapt_head(
    head: Head,
    source: Source,
    target: Target,
    method: str,
    config: AdaptConfig,
    seed: int,
    on_step: Callable[[int, int], None] | None = None,
) -> AdaptedHead:
    """Adapt a head to target clips without labels.

    Each step lowers ``replay_weight * CE(new head, old head's answers; source) + ramp * method's
    loss``. Replay by distillation keeps the head's answers on the source; replay by the labels
    would continue to fit the source.

    Args:
        head: of the bundle; it is not changed.
        source: the bundle's memory.
        target: the clips.
        method: a name in :data:`nnpm.training.adaptation.methods.METHODS`.
        config: steps, batches, weights.
        seed: of all draws; torch's global generator is left as it was.
        on_step: called after every step with the steps taken and the steps in all.

    Returns:
        The adapted head in evaluation mode; the same for the same seed and number of threads.

    Raises:
        TrainingError: if there is no such method, or training ends in weights that are not finite.
    """
    if method not in METHODS:
        raise TrainingError(f"there is no method {method}; choose among {', '.join(METHODS)}")
    kind = METHODS[method]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        adapted = AdaptedHead(
            head,
            target,
            target_statistics=config.target_statistics if kind.target_statistics else 0.0,
            anchored=config.anchor,
        )
        if kind.trains and config.steps:
            _train(head, adapted, kind(config, source, target, adapted), seed, on_step)
    return adapted.eval()


def _train(
    head: Head,
    adapted: AdaptedHead,
    method: Method,
    seed: int,
    on_step: Callable[[int, int], None] | None,
) -> None:
    config, source = method.config, method.source
    batches = _Batches(config, source, method.target, seed)
    with torch.no_grad():
        answers = head.eval()(source.pooled)[0].softmax(1)
    trained = [weight for weight in adapted.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(
        [*trained, *method.parameters()], lr=config.learning_rate, weight_decay=config.weight_decay
    )
    for step in range(config.steps):
        if step % config.refresh_steps == 0:
            adapted.eval()
            with torch.no_grad():
                method.refresh(adapted)
            adapted.train(config.dropout)
        batch = batches.draw(adapted)
        replay = soft_cross_entropy(batch.source_logits, answers[batch.source_index]).mean()
        ramp = min(1.0, step / config.ramp_steps) if config.ramp_steps else 1.0
        loss = config.replay_weight * replay + ramp * method.loss(batch, step / config.steps)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if on_step is not None:
            on_step(step + 1, config.steps)
    if not all(bool(weight.isfinite().all()) for weight in trained):
        raise TrainingError(
            f"{method.name} diverged: its weights are not finite; "
            f"lower learning_rate ({config.learning_rate:g}) or the method's weights"
        )


class _Batches:
    """Draws batches: as many source clips of each emotion, and target clips in one view."""

    def __init__(self, config: AdaptConfig, source: Source, target: Target, seed: int) -> None:
        self.source, self.target = source, target
        self.generator = torch.Generator().manual_seed(seed)
        emotions = sorted(set(source.emotion.tolist()))
        self.slots = [torch.nonzero(source.emotion == emotion)[:, 0] for emotion in emotions]
        self.per_emotion = max(1, config.source_batch // len(self.slots))
        self.num_target = min(config.target_batch, len(target.pooled))
        self.versions = (target.pooled, *target.views)

    def draw(self, head: AdaptedHead) -> Batch:
        """Draw one batch and run the head on it."""
        slots = torch.cat([slots[self._below(len(slots))] for slots in self.slots])
        order = torch.randperm(len(self.target.pooled), generator=self.generator)
        clips = order[: self.num_target]
        view = int(torch.randint(len(self.versions), (), generator=self.generator))
        source = head.project_source(self.source.pooled[slots])
        target = head.project_target(self.versions[view][clips])
        return Batch(
            source_index=slots,
            source_projection=source,
            source_logits=head.classify(source),
            source_emotion=self.source.emotion[slots],
            target_index=clips,
            target_projection=target,
            target_logits=head.classify(target),
        )

    def _below(self, count: int) -> Tensor:
        return torch.randint(count, (self.per_emotion,), generator=self.generator)
