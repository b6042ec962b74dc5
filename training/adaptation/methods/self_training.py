"""Self-training: confident answers become labels."""

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from ..config import AdaptConfig, SelfTrainingConfig
from ..head import AdaptedHead, Source, Target
from .method import Batch, Method


def select(probabilities: Tensor, config: SelfTrainingConfig) -> tuple[Tensor, Tensor]:
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
        >>> answers = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4], [0.45, 0.55]])
        >>> select(answers, SelfTrainingConfig(selection="threshold", threshold=0.8))
        (tensor([0, 0, 0, 1]), tensor([ True,  True, False, False]))
        >>> select(answers, SelfTrainingConfig(selection="balanced", share=0.5))
        (tensor([0, 0, 0, 1]), tensor([ True,  True, False,  True]))
    """
    confidence, answer = probabilities.max(1)
    if config.selection == "threshold":
        return answer, confidence >= config.threshold
    # an emotion that is no clip's answer keeps 1, which only certainty reaches
    thresholds = torch.ones(probabilities.shape[1])
    for emotion in sorted(set(answer.tolist())):
        ranked = confidence[answer == emotion].sort(descending=True).values
        thresholds[emotion] = ranked[max(1, round(config.share * len(ranked))) - 1]
    relative, label = (probabilities / thresholds).max(1)
    return label, relative >= 1.0


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

    def __init__(
        self, config: AdaptConfig, source: Source, target: Target, head: AdaptedHead
    ) -> None:
        super().__init__(config, source, target, head)
        self.label = torch.zeros(len(target.pooled), dtype=torch.int64)
        self.trusted = torch.zeros(len(target.pooled), dtype=torch.bool)

    def refresh(self, head: AdaptedHead) -> None:
        """Compute the labels of the whole target set."""
        probabilities = head.classify(head.project_target(self.target.pooled)).softmax(1)
        self.label, self.trusted = select(probabilities, self.config.self_training)

    def loss(self, batch: Batch, progress: float) -> Tensor:
        """Weighted mean over the batch; clips without a label add 0."""
        clips = batch.target_index
        cost = F.cross_entropy(batch.target_logits, self.label[clips], reduction="none")
        return self.config.self_training.weight * (cost * self.trusted[clips]).mean()
