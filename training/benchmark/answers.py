"""What an adapted head answers, with the vote of its memory, as its bundle would."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from service.inference.bundle import Memory
from service.inference.card import Decision
from service.inference.model import softmax
from service.inference.neighbourhood import Neighbourhood
from training.adaptation.head import AdaptedHead
from training.benchmark.base import Base

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """Of some clips.

    Attributes:
        probabilities: shape ``(clips, emotions)``.
        projection: z, shape ``(clips, projection)``.
        out_of_domain: whether a clip lies too far from all that the memory knows.
    """

    probabilities: Floats
    projection: Floats
    out_of_domain: NDArray[np.bool_]


@torch.no_grad()
def answer(base: Base, head: AdaptedHead, decision: Decision, pooled: Tensor) -> Answers:
    """Answer clips by their pooled features ``(clips, D)``."""
    known = torch.from_numpy(base.memory.features)
    projection = head.project_target(pooled)
    logits = head.classify(projection).numpy()
    # the memory of the bundle that would be published
    memory = Memory(
        head.align(known).numpy(), base.memory.emotion, base.memory.corpus, base.memory.language
    )
    neighbourhood = Neighbourhood(
        memory, head.project_source(known).numpy(), decision, base.network.labels
    )
    bias = np.array(decision.logit_bias or 0.0, np.float32)
    probabilities = softmax(np.asarray(logits / decision.temperature, np.float32) + bias)
    if decision.vote_weight > 0:
        vote = neighbourhood.vote(projection.numpy())
        weight = np.float32(decision.vote_weight)
        probabilities = (1 - weight) * probabilities + weight * vote
    far = neighbourhood.out_of_domain(pooled.numpy()) > decision.out_of_domain
    return Answers(probabilities, projection.numpy(), far)
