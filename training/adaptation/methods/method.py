"""The contract of every adaptation method: its input in a step, and the loss that it returns."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import autograd.numpy as anp
import numpy as np

from ....service.inference.head import Head
from ..config import AdaptConfig
from ..head import Floats, Ints, Source, Target

CLOSED = -1e4
"""Added to the logit of an emotion that does not occur: its probability is 0 in float32."""


def log_softmax(logits: Any) -> Any:
    """Logarithms of the probabilities of rows of logits, with a gradient; no overflow."""
    shifted = logits - anp.max(logits, axis=1, keepdims=True)
    return shifted - anp.log(anp.sum(anp.exp(shifted), axis=1, keepdims=True))


def softmax(logits: Floats) -> Floats:
    """Probabilities of rows of logits, float32."""
    shares: Floats = np.exp(log_softmax(logits))
    return shares


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """The clips of one step: as many source clips of each emotion, and target clips in one view.

    Projections and logits are numpy arrays, or autograd's boxes of them inside a gradient.

    Attributes:
        source_index: slots, int64, shape ``(num_source,)``.
        source_projection: z, shape ``(num_source, projection)``.
        source_logits: shape ``(num_source, emotions)``.
        source_emotion: int64, shape ``(num_source,)``.
        target_index: clips, int64, shape ``(num_target,)``.
        target_projection: z, shape ``(num_target, projection)``.
        target_logits: shape ``(num_target, emotions)``; of emotions that do not occur, close to
            :data:`CLOSED`.
    """

    source_index: Ints
    source_projection: Any
    source_logits: Any
    source_emotion: Ints
    target_index: Ints
    target_projection: Any
    target_logits: Any


class Method(ABC):
    """One way to adapt a head to a target without labels.

    All methods share what :func:`nnpm.training.adaptation.train.adapt_head` does: the replay of the
    source by distillation, target statistics, given labels, views, draws and steps. A method adds
    its loss. It is written with ``autograd.numpy``, which computes the gradient.

    Args:
        config: the common settings, and the method's own section.
        source: the memory.
        target: the clips.
        head: before the first step, with the target's statistics.
        rng: for the method's own draws.
        temperature: divides logits where probabilities are read.
    """

    name: ClassVar[str]
    """The value of ``--method``."""
    trains: ClassVar[bool] = True
    """False: the method takes no training steps."""
    target_statistics: ClassVar[bool] = True
    """False: the head keeps the statistics of the source."""
    follows_shares: ClassVar[bool] = False
    """True: the method itself learns the emotions' shares; its answers need no correction."""

    def __init__(
        self,
        config: AdaptConfig,
        source: Source,
        target: Target,
        head: Head,
        rng: np.random.Generator,
        temperature: float = 1.0,
    ) -> None:
        self.config, self.source, self.target = config, source, target
        self.open = target.open(len(head.classes))
        self.temperature = np.float32(temperature)
        self.rng = rng
        self.prepare(head)

    def prepare(self, head: Head) -> None:  # noqa: B027 - most methods need none
        """Compute what stays the same from the first step to the last.

        Args:
            head: before the first step, with the target's statistics.
        """

    def parameters(self) -> dict[str, Floats]:
        """The method's own weights by name, which are trained with those of the head."""
        return {}

    def refresh(self, head: Head) -> None:  # noqa: B027 - most methods need none
        """Compute from the whole target set, before the first step and every ``refresh_steps``.

        Args:
            head: as trained so far.
        """

    @abstractmethod
    def loss(self, batch: Batch, progress: float, weights: Mapping[str, Any]) -> Any:
        """The method's loss with its weight; the ramp is applied by the caller.

        Args:
            batch: with gradients to the head.
            progress: share of the steps taken, in [0, 1).
            weights: all that is trained, with the method's own parameters.

        Returns:
            A scalar, float32.
        """

    def logits(self, head: Head, projection: Floats) -> Floats:
        """Logits of target clips; of emotions that do not occur, close to :data:`CLOSED`."""
        logits: Floats = head.classify(projection) + np.where(self.open, 0, CLOSED).astype(
            np.float32
        )
        return logits
