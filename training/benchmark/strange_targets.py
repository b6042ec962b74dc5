"""Folders that hold no speech: what does the evidence say of them?"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from service.inference.audio import Waveform
from service.inference.quality import assess
from training.adaptation.adapter import adapt_head
from training.adaptation.config import AdaptConfig
from training.adaptation.evidence import judge
from training.adaptation.material import Target
from training.benchmark.base import Base
from training.benchmark.hearing import listen
from training.strange import babble, chords, noise

Floats = NDArray[np.float32]

_COUNT = 100

KINDS: dict[str, Callable[[np.random.Generator, Sequence[Floats]], Floats]] = {
    "music": lambda rng, _clips: chords(rng),
    "noise": lambda rng, _clips: noise(rng, rng.uniform(0.0, 2.0)),
    "babble": babble,
}
"""By name: makes one sound of three seconds."""


def sounds(kind: str, clips: Sequence[Floats], seed: int) -> list[Floats]:
    """A hundred sounds of one kind; babble is made of ``clips``."""
    rng = np.random.default_rng([seed, list(KINDS).index(kind)])
    return [KINDS[kind](rng, clips) for _ in range(_COUNT)]


@dataclass(frozen=True, slots=True, eq=False)
class Strange:
    """A folder of such sounds, as one network hears it.

    Attributes:
        sounds: how many there were.
        heard: of those that pass for speech, shape ``(1 + views, accepted, D)``.
    """

    sounds: int
    heard: Tensor


def hear_strange(base: Base, found: Sequence[Floats], num_views: int, seed: int) -> Strange:
    """Leave out what is no speech by the rules of the service, and pool the rest."""
    accepted = [sound for sound in found if assess(Waveform(sound)).has_speech]
    if not accepted:
        return Strange(len(found), torch.empty(1 + num_views, 0, base.memory.features.shape[1]))
    return Strange(len(found), listen(base, accepted, num_views, seed))


def run_strange(
    base: Base, strange: Strange, method: str, config: AdaptConfig, seed: int
) -> dict[str, Any]:
    """Adapt to sounds as ``nnpm adapt`` would.

    Returns:
        How many passed for speech, and the verdict: ``refused``, where they were too few.
    """
    heard = strange.heard[: 1 + config.views]
    row: dict[str, Any] = {"clips": strange.sounds, "accepted": heard.shape[1]}
    if heard.shape[1] < config.min_clips:
        return {**row, "verdict": ["refused"], "reasons": [[]], "evidence": [{}]}
    target = Target(heard[0], heard[1:])
    head = adapt_head(base.network.head, base.source, target, method, config, seed)
    evidence = judge(base.network.head, head, base.source, target, base.network.labels)
    return {
        **row,
        "verdict": [evidence.verdict],
        "reasons": [evidence.reasons],
        "evidence": [evidence.figures],
    }
