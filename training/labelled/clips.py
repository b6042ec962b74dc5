"""Labelled clips as a bundle hears them, and its answers to them under any decision.

The answers are those of the service: the same cuts, graph, default emotions and thresholds.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...service.inference import bundle as bundles
from ...service.inference.audio.decode import decode
from ...service.inference.audio.waveform import SAMPLE_RATE_HZ
from ...service.inference.bundle import Bundle
from ...service.inference.card import Decision
from ...service.inference.errors import AudioError, printable
from ...service.inference.graphs import Model
from ...service.inference.segments import cut_turns
from ..bundle.prototypes import Prototypes, answer
from ..errors import TrainingError

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

_LONGEST_S = 30.0  # that is scored of a clip without speech
_LEAST_SAMPLES = 512
_TINY = 1e-12


def open_base(path: Path) -> Bundle:
    """Open a bundle that can be calibrated.

    Raises:
        BundleError: if it cannot be read.
        TrainingError: if it is of the first generation.
    """
    bundle = bundles.load(path)
    if bundle.card.schema_version < 2:
        raise TrainingError(
            f"{printable(path)} is a bundle of the first generation; calibrate a newer one, such "
            "as default/2"
        )
    return bundle


@dataclass(frozen=True, slots=True, eq=False)
class Clips:
    """Clips as a bundle's encoder sees them, one row per turn.

    Attributes:
        embedding: pooled features h of each turn, shape ``(turns, D)``.
        clip: for each turn, which clip it is of, shape ``(turns,)``.
        weight: seconds of each turn, shape ``(turns,)``.
        truth: index of each clip's emotion among the bundle's labels, shape ``(clips,)``; -1 if it
            is not known.
        undecodable: indices of those that cannot be decoded, and have no turn.
    """

    embedding: Floats
    clip: Ints
    weight: Floats
    truth: Ints
    undecodable: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.truth)

    def of(self, chosen: Ints) -> "Clips":
        """Some of them."""
        rows = np.flatnonzero(np.isin(self.clip, chosen))
        number = np.full(len(self), -1)
        number[chosen] = np.arange(len(chosen))
        return replace(
            self,
            embedding=self.embedding[rows],
            clip=number[self.clip[rows]],
            weight=self.weight[rows],
            truth=self.truth[chosen],
        )


def read_clips(
    bundle: Bundle,
    paths: Sequence[Path],
    emotions: Sequence[str] = (),
    *,
    threads: int = 2,
    on_clip: Callable[[int, int], None] = lambda _done, _total: None,
) -> Clips:
    """Decode clips, cut them as for prediction, and embed their turns.

    Args:
        bundle: of the second generation.
        paths: of the clips.
        emotions: one for each clip; empty if they are not known.
        threads: that decode and score.
        on_clip: called with the number of clips done and of all.

    Raises:
        TrainingError: if a clip has an emotion that the bundle does not know, or none can be
            decoded.
    """
    unknown = sorted(set(emotions) - set(bundle.labels))
    if unknown:
        raise TrainingError(
            f"the bundle cannot answer {', '.join(unknown)}, only {', '.join(bundle.labels)}: "
            "leave those clips out"
        )
    embed = partial(_embed, Model(bundle), bundle.card.window_s)
    rows: list[Floats] = []
    clip: list[int] = []
    weight: list[float] = []
    undecodable = []
    with ThreadPoolExecutor(threads) as pool:
        for index, turns in enumerate(pool.map(embed, paths)):
            if not turns:
                undecodable.append(index)
            for embedding, seconds in turns:
                rows.append(embedding)
                clip.append(index)
                weight.append(seconds)
            on_clip(index + 1, len(paths))
    if not rows:
        raise TrainingError(f"none of the {len(paths)} clips can be decoded")
    return Clips(
        np.stack(rows),
        np.array(clip, np.int64),
        np.array(weight, np.float32),
        np.array([bundle.labels.index(one) for one in emotions] or [-1] * len(paths), np.int64),
        tuple(undecodable),
    )


def _embed(model: Model, window_s: float, path: Path) -> list[tuple[Floats, float]]:
    """Embedding and seconds of each turn of a clip; of the whole clip if it holds no speech."""
    try:
        recording = decode(path)
    except AudioError:
        return []
    try:
        waveform = recording.waveforms[0]
        turns = [turn for turn in cut_turns(recording, window_s)[0].turns if turn.has_speech]
        pieces = [turn.samples(waveform) for turn in turns]
        if not pieces:
            end = min(len(waveform), round(_LONGEST_S * SAMPLE_RATE_HZ))
            pieces = [waveform.part(0, end).samples]
        padded = (np.pad(piece, (0, max(0, _LEAST_SAMPLES - len(piece)))) for piece in pieces)
        return [(model.score(piece).embedding, len(piece) / SAMPLE_RATE_HZ) for piece in padded]
    finally:
        recording.close()


class Answers(NamedTuple):
    """What a decision answers for clips.

    Attributes:
        probabilities: among the default emotions, 0 for others, shape ``(clips, emotions)``; a clip
            that cannot be decoded has no more than a guess.
        out_of_domain: shape ``(clips,)``.
        prediction: index of the emotion; ``emotions`` for a clip that cannot be decoded.
        answered: whether the service answers.
    """

    probabilities: Floats
    out_of_domain: Floats
    prediction: Ints
    answered: NDArray[np.bool_]


class Answerer:
    """Answers clips as the service does with a bundle, under any decision.

    Args:
        bundle: of the second generation.
    """

    def __init__(self, bundle: Bundle) -> None:
        self.head = bundle.head()
        self.prototypes = Prototypes.of(self.head, bundle.memory())
        self.num_emotions = len(bundle.labels)
        self.allowed = [bundle.labels.index(name) for name in bundle.card.answers]

    def __call__(self, clips: Clips, decision: Decision) -> Answers:
        """Answer clips."""
        found = answer(clips.embedding, self.head, self.prototypes, decision)
        rows = np.zeros_like(found.probabilities)
        rows[:, self.allowed] = found.probabilities[:, self.allowed]
        probabilities = _merge(rows, clips)
        distance = _merge(found.out_of_domain[:, None], clips, normalise=False)[:, 0]
        seen = np.bincount(clips.clip, minlength=len(clips)) > 0
        guess = np.isin(np.arange(self.num_emotions), self.allowed) / len(self.allowed)
        probabilities[~seen] = guess
        prediction = np.where(seen, probabilities.argmax(1), self.num_emotions)
        answered = seen & (probabilities.max(1) >= decision.low_confidence)
        answered &= distance <= decision.out_of_domain
        return Answers(probabilities, distance, prediction, answered)


def _merge(rows: Floats, clips: Clips, *, normalise: bool = True) -> Floats:
    """The mean over a clip's turns, by their seconds."""
    total = np.zeros((len(clips), rows.shape[1]))
    np.add.at(total, clips.clip, rows * clips.weight[:, None])
    weight = total.sum(1) if normalise else np.bincount(clips.clip, clips.weight, len(clips))
    merged: Floats = (total / np.maximum(weight, _TINY)[:, None]).astype(np.float32)
    return merged
