"""NNPM: pseudo multilabels between the target's clips and the memory of the source."""

import torch
from torch import Tensor

from ...network.memory import ExternalMemory, multilabel_loss, soft_cross_entropy
from ..config import AdaptConfig
from ..head import AdaptedHead, Source, Target
from ..pseudo_labels import confidence, prior, pseudo_labels
from .entropy import information_maximisation
from .method import Batch, Method

_ROWS_AT_ONCE = 1024
_ROUNDING = 1e-5
"""Tolerance, so that the clip that sets a slot's reach is within it in spite of rounding."""


class NNPM(Method):
    """Soft pseudo labels and pseudo multilabels, information maximisation, confidence weights.

    References:
        Li, Yan, Wang, arXiv 2108.08663: external memory of source features, pseudo multilabels of
        target clips. Per-slot update after Zhong et al. (CVPR 2019); positives by reciprocal
        neighbourhood after MPLP, loss after MMCL (Wang & Zhang, CVPR 2020). Ours: pseudo
        labels are computed over the whole target set
        (:mod:`nnpm.training.adaptation.pseudo_labels`) and also train the classifier, and
        information maximisation approaches an estimated prior instead of equal shares.
    """

    name = "nnpm"

    def __init__(
        self, config: AdaptConfig, source: Source, target: Target, head: AdaptedHead
    ) -> None:
        super().__init__(config, source, target, head)
        chosen = _evenly(source.emotion, config.nnpm.most_slots)
        self.place = torch.full((len(source.emotion),), -1)
        self.place[chosen] = torch.arange(len(chosen))
        width = head.head.projection.out_features
        self.memory = ExternalMemory(source.emotion[chosen], width, config.nnpm.memory_momentum)
        with torch.no_grad():
            self.memory.fill(
                torch.cat(
                    [
                        head.project_source(p)
                        for p in torch.split(source.pooled[chosen], _ROWS_AT_ONCE)
                    ]
                )
            )

    def refresh(self, head: AdaptedHead) -> None:
        """Compute pseudo labels of all clips, and how near a clip must be to each slot."""
        nnpm = self.config.nnpm
        projection = head.project_target(self.target.pooled)
        logits = head.classify(projection)
        self.labels = pseudo_labels(
            nnpm, logits, projection, self.memory.slots, self.memory.emotion
        )
        self.shares = prior(logits.softmax(1), nnpm.balance)
        self.weight = torch.ones(len(logits))
        if nnpm.confidence_weights:
            self.weight = confidence(self.labels)
        self.reach = self._reach(projection)

    def loss(self, batch: Batch, progress: float) -> Tensor:
        """The sum of the three losses, each with its weight."""
        nnpm = self.config.nnpm
        slots = self.place[batch.source_index]
        kept = slots >= 0
        self.memory.update(slots[kept], batch.source_projection.detach()[kept])
        labels, weight = self.labels[batch.target_index], self.weight[batch.target_index]
        loss = batch.target_logits.new_zeros(())
        if nnpm.pseudo_label_weight > 0:
            costs = soft_cross_entropy(batch.target_logits, labels)
            loss = loss + nnpm.pseudo_label_weight * (weight * costs).mean()
        if nnpm.multilabel_weight > 0:
            similarities = self.memory.similarities(batch.target_projection)
            positives, negatives = self.multilabel(similarities.detach(), labels.argmax(1))
            costs = multilabel_loss(
                similarities, positives, 1.0, nnpm.hard_negative_share, negatives=negatives
            )
            counted = weight * positives.any(1)  # a clip without a positive slot is left out
            loss = loss + nnpm.multilabel_weight * (counted * costs).mean()
        if nnpm.information_weight > 0:
            information = information_maximisation(batch.target_logits, self.shares)
            loss = loss + nnpm.information_weight * information
        return loss

    def multilabel(self, similarities: Tensor, emotion: Tensor) -> tuple[Tensor, Tensor]:
        """The slots that attract each clip, and those that repel it.

        Args:
            similarities: of clips and slots, shape ``(batch, num_slots)``.
            emotion: of the clips' pseudo labels, shape ``(batch,)``.

        Returns:
            Two bool arrays of that shape. The positives are the most similar slots of the clip's
            emotion for which the clip, in turn, is among the nearest; the negatives are the slots
            of other emotions. Other slots of the clip's own emotion are in neither.
        """
        nnpm = self.config.nnpm
        own = self.memory.emotion == emotion[:, None]
        count = max(1, round(nnpm.positive_share * similarities.shape[1]))
        best = similarities.masked_fill(~own, -2.0).topk(count, dim=1).values[:, -1:]
        positives = own & (similarities >= best) & (similarities >= self.reach - _ROUNDING)
        return positives, ~own

    def _reach(self, projection: Tensor) -> Tensor:
        """Minimum similarity of a target clip to be near each slot, shape ``(num_slots,)``."""
        share = self.config.nnpm.consistency
        if share == 0.0:
            return torch.full((len(self.memory.slots),), -2.0)
        count = max(1, round(share * len(projection)))
        reach = [
            (part @ projection.T).topk(count, dim=1).values[:, -1]
            for part in torch.split(self.memory.slots, _ROWS_AT_ONCE)
        ]
        return torch.cat(reach)


def _evenly(emotion: Tensor, most: int) -> Tensor:
    """Indices of at most ``most`` slots: all of rare emotions, evenly spaced of frequent ones."""
    if len(emotion) <= most:
        return torch.arange(len(emotion))
    groups = sorted(
        (torch.nonzero(emotion == e)[:, 0] for e in torch.unique(emotion).tolist()), key=len
    )
    chosen: list[Tensor] = []
    for index, group in enumerate(groups):
        room = (most - sum(map(len, chosen))) // (len(groups) - index)
        comb = torch.linspace(0, len(group) - 1, min(room, len(group))).round().long()
        chosen.append(group[comb])
    return torch.cat(chosen).sort().values
