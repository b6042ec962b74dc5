"""Self-training: confident answers become labels."""

from collections.abc import Mapping
from typing import Any

import autograd.numpy as anp
import numpy as np
from numpy.typing import NDArray

from ....service.inference.head import Head
from ..config import SelfTrainingConfig
from ..head import Floats, Ints
from .method import Batch, Method, log_softmax, softmax


def select(probabilities: Floats, config: SelfTrainingConfig) -> tuple[Ints, NDArray[np.bool_]]:
    """Labels for target clips, and which of them to trust.

    With a threshold, the label is the likeliest emotion, and trusted from ``threshold`` on.
    Balanced, each emotion has a threshold of its own, which the most confident ``share`` of the
    clips that answer it (rounded, at least one) reach; the label is the emotion with the largest
    probability relative to its threshold, so that emotions of low confidence get labels too.

    Args:
        probabilities: rows that sum to 1, shape ``(num_clips, emotions)``.
        config: the selection, and its threshold or share.

    Returns:
        Labels, int64, and trust, bool; both of shape ``(num_clips,)``.

    Examples:
        >>> answers = np.array([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4], [0.45, 0.55]], np.float32)
        >>> half = SelfTrainingConfig(selection="balanced", share=0.5)
        >>> [found.tolist() for found in select(answers, half)]
        [[0, 0, 0, 1], [True, True, False, True]]
    """
    confidence, answer = probabilities.max(1), probabilities.argmax(1)
    if config.selection == "threshold":
        return answer, confidence >= config.threshold
    # an emotion that is no clip's answer keeps 1, which only certainty reaches
    thresholds = np.ones(probabilities.shape[1], np.float32)
    for emotion in np.unique(answer):
        ranked = np.sort(confidence[answer == emotion])[::-1]
        thresholds[emotion] = ranked[max(1, round(config.share * len(ranked))) - 1]
    relative = probabilities / thresholds
    return relative.argmax(1), relative.max(1) >= 1.0


class SelfTraining(Method):
    """Cross-entropy of target clips with the head's own confident answers.

    The whole target set is labelled as recorded, at every refresh; the steps learn from views.

    References:
        Lee, *Pseudo-Label*, ICML workshop on representation learning 2013, for the loss; Sohn et
        al., *FixMatch*, arXiv 2001.07685, for the threshold, the labels from clips as they are
        (theirs anew in every step), and the mean over the whole batch, in which few confident clips
        weigh little; Zou et al., *Class-Balanced Self-Training*, arXiv 1810.07911, for the
        balanced selection (their share grows with each round).
    """

    name = "self_training"

    def prepare(self, head: Head) -> None:
        """Begin without labels."""
        self.label = np.zeros(len(self.target.pooled), np.int64)
        self.trusted = np.zeros(len(self.target.pooled), np.bool_)

    def refresh(self, head: Head) -> None:
        """Compute the labels of the whole target set."""
        logits = self.logits(head, head.project(head.standardise(self.target.pooled)))
        self.label, self.trusted = select(softmax(logits), self.config.self_training)

    def loss(self, batch: Batch, progress: float, weights: Mapping[str, Any]) -> Any:
        """Weighted mean over the batch; clips without a label add 0."""
        clips = batch.target_index
        chosen = np.zeros(batch.target_logits.shape, np.float32)
        chosen[np.arange(len(clips)), self.label[clips]] = self.trusted[clips]
        cost = -anp.sum(chosen * log_softmax(batch.target_logits)) / len(clips)
        return self.config.self_training.weight * cost
