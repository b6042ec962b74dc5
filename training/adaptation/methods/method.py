"""The contract of every adaptation method: its input in a step, and the loss that it returns."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from ..config import AdaptConfig
from ..head import AdaptedHead, Source, Target


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """The clips of one step: as many source clips of each emotion, and target clips in one view.

    Attributes:
        source_index: slots, int64, shape ``(num_source,)``.
        source_projection: z, shape ``(num_source, projection)``.
        source_logits: shape ``(num_source, emotions)``.
        source_emotion: int64, shape ``(num_source,)``.
        target_index: clips, int64, shape ``(num_target,)``.
        target_projection: z, shape ``(num_target, projection)``.
        target_logits: shape ``(num_target, emotions)``.
    """

    source_index: Tensor
    source_projection: Tensor
    source_logits: Tensor
    source_emotion: Tensor
    target_index: Tensor
    target_projection: Tensor
    target_logits: Tensor


class Method(ABC):
    """One way to adapt a head to a target without labels.

    All methods share what :func:`nnpm.training.adaptation.train.adapt_head` does: the replay of the
    source by distillation, target statistics, views, draws and steps. A method adds its loss.

    Args:
        config: the common settings, and the method's own section.
        source: the memory.
        target: the clips.
        head: before the first step.
    """

    name: ClassVar[str]
    """The value of ``--method``."""
    trains: ClassVar[bool] = True
    """False: the method takes no training steps."""
    target_statistics: ClassVar[bool] = True
    """False: the head keeps the statistics of the source."""

    def __init__(
        self, config: AdaptConfig, source: Source, target: Target, head: AdaptedHead
    ) -> None:
        self.config, self.source, self.target = config, source, target

    def parameters(self) -> Iterable[nn.Parameter]:
        """The method's own parameters, which are trained with those of the head."""
        return ()

    def refresh(self, head: AdaptedHead) -> None:  # noqa: B027 - most methods need none
        """Compute from the whole target set, before the first step and every ``refresh_steps``.

        Called without gradients, and with the head in evaluation mode.
        """

    @abstractmethod
    def loss(self, batch: Batch, progress: float) -> Tensor:
        """The method's loss with its weight; the ramp is applied by the caller.

        Args:
            batch: with gradients to the head.
            progress: share of the steps taken, in [0, 1).

        Returns:
            A scalar.
        """
