"""What makes a trained network answer: its memory, and a decision fitted on held-out speakers."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from service.inference.bundle import Memory
from service.inference.card import Decision
from training.calibration import Scores, fit_decision
from training.corpora import Utterance
from training.network import Network
from training.ragged import Ragged
from training.run import Material
from training.strange import strange_sounds
from training.trainer import embed


def remember(network: Network, utterances: Sequence[Utterance], clips: Ragged) -> Memory:
    """One slot per clip: those of the training side."""
    scores = _scores(network, list(clips), utterances)
    return Memory(
        # what the bundle stores, so that calibration sees what the service will
        features=scores.embedding.astype(np.float16).astype(np.float32),
        emotion=scores.truth,
        corpus=tuple(u.corpus for u in utterances),
        language=tuple(u.language for u in utterances),
    )


def decide(network: Network, memory: Memory, material: Material, seed: int) -> Decision:
    """Fit temperatures, vote weight and thresholds on the validation speakers.

    Args:
        network: as trained.
        memory: of :func:`remember`.
        material: of the run.
        seed: of the sounds that are no speech.
    """
    validation = material.split.validation
    recorded = material.clips(validation)
    with torch.no_grad():
        slots = network.head.project(torch.from_numpy(memory.features)).numpy()
    # As recorded, and in rooms, noise and codecs: what is served is seldom a studio recording.
    versions = [recorded, *material.variants(validation)]
    heard = [clip for version in versions for clip in version]
    known = _scores(network, heard, validation * len(versions))
    strange = _scores(network, strange_sounds(seed, list(recorded)), [])
    return fit_decision(memory, slots, material.labels, known, strange.embedding)


def _scores(
    network: Network, clips: Sequence[NDArray[np.float32]], utterances: Sequence[Utterance]
) -> Scores:
    logits, pooled = embed(network, clips, torch.device("cpu"))
    with torch.no_grad():
        projection = network.head.project(pooled)
    truth = np.array([network.labels.index(u.emotion) for u in utterances], np.int64)
    return Scores(logits.numpy(), pooled.numpy(), projection.numpy(), truth)
