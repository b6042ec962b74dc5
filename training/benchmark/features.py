"""A target corpus in the features of one bundle: computed once, then read from a cache."""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from ...service.files import replacing
from ...service.inference.audio.speech import assess
from ...service.inference.audio.waveform import SAMPLE_RATE_HZ, Waveform
from ...service.inference.bundle import Bundle
from ...service.system import available_cores
from ..adaptation.features import Encoder
from ..adaptation.head import Target
from ..corpora import Utterance, load
from ..data.clips import load_clips
from ..errors import TrainingError
from .cases import HELD_OUT, PROTOCOLS, Part, core_clips, degrade

_VERSION = 1  # raised when the features of a clip change
_LONGEST_S = 10

MOST_CLIPS = 2000
"""Clips of a development corpus that take part: the larger ones would take most of the time."""

_DRAWN = {name for protocol in PROTOCOLS.values() for name in protocol.development}


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """A target corpus in the features of one bundle.

    Attributes:
        utterances: all clips, with labels for the score.
        pooled: shape ``(1 + views, clips, D)``; the first view is the clip itself.
        has_speech: whether the service finds speech in a clip, shape ``(clips,)``.
    """

    utterances: Sequence[Utterance]
    pooled: NDArray[np.float32]
    has_speech: NDArray[np.bool_]

    def target(self, part: Part, num_views: int, labels: tuple[str, ...]) -> Target:
        """What a method gets of a part: features, and labels only of clips that the part names."""
        clips = self.pooled[: 1 + num_views, part.adapt]
        given = [labels.index(self.utterances[place].emotion) for place in part.labelled]
        return Target(
            clips[0],
            clips[1:],
            labelled=np.searchsorted(part.adapt, part.labelled),
            emotion=np.array(given, np.int64),
        )


def load_target(
    name: str, data: Path, bundle: Bundle, *, uncurated: bool = False
) -> tuple[str, list[Utterance]]:
    """Read a target corpus.

    Args:
        name: of the corpus.
        data: holds one folder per corpus.
        bundle: of a corpus that it has learnt from, only its held-out speakers are left.
        uncurated: keep the clips of other emotions than the core ones.

    Returns:
        The target's name in the tables, and its clips; of a large development corpus, some.

    Raises:
        CorpusError: if it cannot be read.
        TrainingError: if no clip of the four emotions is left.
    """
    utterances = load(name, data)
    learnt = {corpus["name"]: corpus for corpus in bundle.card.training.get("corpora", ())}
    title = name
    if name in learnt:
        title += HELD_OUT
        speakers = set(learnt[name]["speakers"]["held_out"])
        utterances = [u for u in utterances if u.speaker in speakers]
    core = core_clips(utterances)
    if not len(core):
        raise TrainingError(f"{title} has 0 clips of the four emotions among {len(utterances)}")
    if uncurated:
        return title, utterances
    if name in _DRAWN:
        core = np.sort(np.random.default_rng(0).permutation(core)[:MOST_CLIPS])
    return title, [utterances[place] for place in core]


def features_path(
    bundle: Bundle, utterances: Sequence[Utterance], degradation: str, num_views: int, cache: Path
) -> Path:
    """The file of a corpus's features; its name is a digest of graph, clips and changes."""
    clips = [(str(u.path), u.path.stat().st_size, u.path.stat().st_mtime_ns) for u in utterances]
    parts = [_VERSION, bundle.card.files["model.onnx"], clips, degradation, num_views]
    name = hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
    return cache / f"features-{name}.npz"


def load_subject(
    bundle: Bundle, utterances: Sequence[Utterance], degradation: str, num_views: int, cache: Path
) -> Subject:
    """Embed all clips with the bundle's own graph, or read what was embedded before.

    Every clip is trimmed as the service does, and cut to its first ten seconds. The views have one
    seed, whatever the seed of an adaptation.

    Args:
        bundle: gives the graph.
        utterances: of the corpus.
        degradation: a name in :data:`nnpm.training.benchmark.cases.DEGRADATIONS`.
        num_views: augmented versions of each clip.
        cache: folder for decoded clips and these features.
    """
    path = features_path(bundle, utterances, degradation, num_views, cache)
    if not path.exists():
        encoder = Encoder(bundle.path / "model.onnx", num_views, seed=0)
        longest = _LONGEST_S * SAMPLE_RATE_HZ

        def one(clip: NDArray[np.float32]) -> tuple[NDArray[np.float32], bool]:
            changed = degrade(clip[:longest], degradation)
            return encoder(changed), assess(Waveform(changed)).has_speech

        clips = load_clips(utterances, cache)
        with ThreadPoolExecutor(available_cores()) as pool:
            bar = tqdm(
                pool.map(one, clips), desc="embed", total=len(clips), unit="clip", disable=None
            )
            rows, speech = zip(*bar, strict=True)
        with replacing(path) as temporary, temporary.open("xb") as file:
            np.savez(file, pooled=np.stack(rows, axis=1), has_speech=np.array(speech))
    with np.load(path) as stored:
        return Subject(utterances, stored["pooled"], stored["has_speech"])
