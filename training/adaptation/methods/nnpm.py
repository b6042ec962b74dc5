"""NNPM: pseudo multilabels between the target's clips and the memory of the source."""

from collections.abc import Mapping
from typing import Any

import autograd.numpy as anp
import numpy as np
from autograd.tracer import getval
from numpy.typing import NDArray

from ....service.inference.head import Head
from ..head import Floats, Ints
from .method import CLOSED, Batch, Method, log_softmax, softmax
from .mixture import mixture_labels
from .neighbours import confidence, neighbours, voice_space, voices
from .prior import estimate_prior

_ROWS_AT_ONCE = 1024
_ROUNDING = 1e-5
"""Tolerance, so that the clip that sets a slot's reach is within it in spite of rounding."""


class NNPM(Method):
    """Pseudo multilabels with hard negatives, and cross-entropy with pseudo labels.

    References:
        Li, Yan, Wang, arXiv 2108.08663: external memory of source features, pseudo multilabels of
        target clips. Positives by reciprocal neighbourhood after MPLP, loss after MMCL (Wang &
        Zhang, CVPR 2020); numbers of positives and negatives are absolute, so that they do not
        change with the memory's size. Zhong et al. (CVPR 2019) update a slot as its clip is drawn;
        here all slots are projected anew at every refresh, which their stored features allow.
        Ours: the emotion of a clip's multilabel is decided over the whole target set
        (:mod:`nnpm.training.adaptation.methods.mixture`), slots whose own neighbours in the memory
        have other emotions do not attract, and unsure clips weigh less.
    """

    name = "nnpm"
    follows_shares = True

    def prepare(self, head: Head) -> None:
        """Sort the memory by emotion, and find reliable slots and voices."""
        # by emotion: the slots of one are a slice, and not a copy
        self.order = np.argsort(self.source.emotion, kind="stable")
        self.emotion = self.source.emotion[self.order]
        self.bounds = np.searchsorted(self.emotion, np.arange(len(self.open) + 1))
        self.slots = head.project(self.source.features[self.order])
        self.reliable = self._reliable()
        self.voice: Ints | None = None
        if (count := self.config.mixture.voices) > 1 and self.config.nnpm.mixture:
            space = voice_space(self.source, self.config.mixture.voice_width)
            self.voice = voices(head.standardise(self.target.pooled) @ space, count, self.rng)

    def refresh(self, head: Head) -> None:
        """Project memory and target, and compute the pseudo labels."""
        nnpm, target = self.config.nnpm, self.target
        self.slots = head.project(self.source.features[self.order])
        projection = head.project(head.standardise(target.pooled))
        logits = self.logits(head, projection)
        calibrated = logits / self.temperature
        shares = estimate_prior(calibrated, self.config.prior, self.open, self.rng)
        with np.errstate(divide="ignore"):
            self.labels = softmax(np.maximum(calibrated + np.log(shares), CLOSED))
        self.labels *= shares > 0
        given = (target.labelled, target.emotion)
        self.labels[given[0]] = np.eye(len(self.open), dtype=np.float32)[given[1]]
        if nnpm.mixture:
            self.labels = mixture_labels(
                head.classify(self.slots), self.emotion, logits, self.labels, self.config.mixture,
                self.voice, given,
            )  # fmt: skip
        self.weight = np.ones(len(logits), np.float32)
        if nnpm.confidence_weights:
            self.weight = confidence(self.labels, int((shares > 0).sum()))
        self.reach = self._reach(projection)

    def loss(self, batch: Batch, progress: float, weights: Mapping[str, Any]) -> Any:
        """The sum of both losses, each with its weight."""
        nnpm = self.config.nnpm
        labels, weight = self.labels[batch.target_index], self.weight[batch.target_index]
        loss = 0.0
        if nnpm.pseudo_label_weight > 0:
            costs = weight[:, None] * labels * log_softmax(batch.target_logits)
            loss = loss - nnpm.pseudo_label_weight * anp.sum(costs) / len(labels)
        if nnpm.multilabel_weight > 0:
            similarities = anp.dot(batch.target_projection, self.slots.T)
            pull, push = self.multilabel(getval(similarities), labels.argmax(1))
            weight = weight * (pull.sum(1) > 0) / len(labels)  # a clip without positives waits
            pull, push = weight[:, None] * pull, weight[:, None] * push
            costs = pull * (1.0 - similarities) ** 2 + push * (1.0 + similarities) ** 2
            loss = loss + nnpm.multilabel_weight * anp.sum(costs)
        return loss

    def multilabel(self, similarities: Floats, emotion: Ints) -> tuple[Floats, Floats]:
        """How strongly each slot attracts each clip, and how strongly it repels it.

        The loss of a clip is ``sum pull (1 - s)^2 + sum push (1 + s)^2``. The positives are the
        most similar reliable slots of the clip's emotion for which the clip, in turn, is among the
        nearest; the negatives are the most similar slots of every other emotion.

        Args:
            similarities: of clips and slots, shape ``(batch, num_slots)``.
            emotion: of the clips' pseudo labels, shape ``(batch,)``.

        Returns:
            Two arrays of that shape; a row sums to 1, or to 0 if there are no such slots.
        """
        nnpm = self.config.nnpm
        pull, push = np.zeros_like(similarities), np.zeros_like(similarities)
        others = max(1, int((np.diff(self.bounds) > 0).sum()) - 1)
        most = -(-nnpm.negatives // others)
        for index, (start, end) in enumerate(zip(self.bounds[:-1], self.bounds[1:], strict=True)):
            if start == end:
                continue
            block = similarities[:, start:end]
            own = emotion == index
            if own.any():
                near = np.where(self.reliable[start:end], block[own], -2.0)
                chosen = _top(near, nnpm.positives)
                chosen &= (near > -2.0) & (near >= self.reach[start:end] - _ROUNDING)
                pull[own, start:end] = chosen
            if not own.all():
                push[~own, start:end] = _top(block[~own], most)
        return _mean_weights(pull), _mean_weights(push)

    def _reach(self, projection: Floats) -> Floats:
        """Minimum similarity of a target clip to be near each slot, shape ``(num_slots,)``."""
        share = self.config.nnpm.consistency
        if share == 0.0:
            return np.full(len(self.slots), -2.0, np.float32)
        count = max(1, round(share * len(projection)))
        reach = np.empty(len(self.slots), np.float32)
        for start in range(0, len(reach), _ROWS_AT_ONCE):
            near = self.slots[start : start + _ROWS_AT_ONCE] @ projection.T
            reach[start : start + len(near)] = np.partition(near, -count, axis=1)[:, -count]
        return reach

    def _reliable(self) -> NDArray[np.bool_]:
        """Slots whose neighbours of other speakers share their emotion often enough."""
        nnpm = self.config.nnpm
        if nnpm.reliable_share == 0.0 or len(self.slots) < 2:
            return np.ones(len(self.slots), np.bool_)
        nearest = neighbours(self.slots, nnpm.reliable_neighbours, self.source.speaker[self.order])
        share = (self.emotion[nearest] == self.emotion[:, None]).mean(1)
        reliable: NDArray[np.bool_] = share >= nnpm.reliable_share
        for start, end in zip(self.bounds[:-1], self.bounds[1:], strict=True):
            if not reliable[start:end].any():  # an emotion without any keeps all
                reliable[start:end] = True
        return reliable


def _top(values: Floats, count: int) -> NDArray[np.bool_]:
    """Which values are among the ``count`` largest of their row."""
    if count >= values.shape[1]:
        return np.ones(values.shape, np.bool_)
    least = np.partition(values, -count, axis=1)[:, -count]
    return values >= least[:, None]


def _mean_weights(chosen: Floats) -> Floats:
    weights: Floats = chosen / np.maximum(chosen.sum(1, keepdims=True), np.float32(1.0))
    return weights
