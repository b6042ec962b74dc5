"""The features of the target: clips of a folder, pooled as recorded and in augmented views."""

import hashlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...service.inference.audio.decode import decode
from ...service.inference.audio.formats import (
    AUDIO_SUFFIXES,
    FolderContent,
    PassedOver,
    audio_files,
    describe_passed_over,
)
from ...service.inference.audio.waveform import SAMPLE_RATE_HZ, Recording, Waveform
from ...service.inference.card import Card
from ...service.inference.errors import AudioError, AudioTooLongError, AudioTooShortError, printable
from ...service.inference.segments import TOO_SHORT_S, cut_turns
from ..data.augment import SpectralAugment
from ..errors import TrainingError
from ..network.frontend import FrontEnd
from ..network.network import Network
from .config import AdaptConfig
from .head import Target


@torch.no_grad()
def whole_log_mel(front_end: FrontEnd, samples: NDArray[np.float32]) -> tuple[Tensor, Tensor]:
    """Log-mel power of one clip, ``(1, 1, n_mels, num_frames)``, and its mask, which is all ones.

    A clip shorter than one analysis window is padded to its length.
    """
    shortest = front_end.config.win_length
    waveform = torch.from_numpy(np.pad(samples, (0, max(0, shortest - len(samples)))))
    return front_end.log_mel(waveform[None], torch.tensor([len(samples)]))


class FeatureViews:
    """Pools clips, each as recorded and in augmented views.

    The recording and its views are one batch of equal length: nothing is padded, and the features
    as recorded are those of the service. Time and frequency masks are applied to the input of the
    encoder only, not to that of the functionals.

    Instances are thread-safe: the draws for a clip depend only on its samples and the seed.

    Args:
        network: of the bundle; the augmentation is that of its source training.
        num_views: per clip.
        seed: of the views.

    Examples:
        >>> from nnpm.training.config import Config
        >>> network = Network(Config(), ("angry", "sad")).eval()
        >>> FeatureViews(network, num_views=3, seed=0)(np.zeros(16_000, np.float32)).shape
        torch.Size([4, 661])
    """

    def __init__(self, network: Network, num_views: int, seed: int) -> None:
        self.network, self.num_views, self.seed = network, num_views, seed

    @torch.no_grad()
    def __call__(self, samples: NDArray[np.float32]) -> Tensor:
        """Pool one clip.

        Args:
            samples: float32 in [-1, 1] at 16 kHz, shape ``(num_samples,)``.

        Returns:
            Shape ``(1 + num_views, D)``; the first row is the clip as recorded.
        """
        front_end = self.network.front_end
        recorded, mask = whole_log_mel(front_end, samples)
        power, features = [recorded], [front_end.normalise(recorded, mask)]
        if self.num_views:
            everywhere = mask.expand(self.num_views, -1, -1, -1)
            augment = self._augmentation(samples)
            varied = augment(recorded.expand(self.num_views, -1, -1, -1))
            power.append(varied)
            features.append(augment.mask(front_end.normalise(varied, everywhere)))
        return self.network.pool(torch.cat(power), torch.cat(features), None)

    def _augmentation(self, samples: NDArray[np.float32]) -> SpectralAugment:
        digest = hashlib.sha256(self.seed.to_bytes(8) + samples.tobytes()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:7]))
        config = self.network.config
        return SpectralAugment(config.augment, config.front_end, generator)


Skipped = Literal["undecodable", "too_long", "too_short", "no_speech", "duplicate"]
"""Why a file is not used."""

Floats = NDArray[np.float32]
_Extract = Callable[[Floats], Tensor]

_FILES_AT_ONCE = 32  # decoded ahead; more would only need more memory
_EXAMPLES = 24  # segments of speech kept to compare the graphs with torch


@dataclass(frozen=True, slots=True, eq=False)
class TargetFeatures:
    """The features of a folder of audio.

    Attributes:
        rows: one per segment of speech, as ``extract`` returned it.
        accepted: number of files that were used.
        skipped: files that were not used, relative to the folder, by reason.
        examples: the samples of some segments.
        passed_over: files of the folder that are no recordings, by reason.
    """

    rows: list[Tensor]
    accepted: int
    skipped: dict[Skipped, list[str]]
    examples: list[Floats]
    passed_over: PassedOver

    def target(self) -> Target:
        """The rows of :class:`FeatureViews` as one target set."""
        together = torch.stack(self.rows, dim=1)
        return Target(together[0], together[1:])


def extract_features(
    folder: Path,
    extract: _Extract,
    card: Card,
    config: AdaptConfig,
    *,
    threads: int,
    on_file: Callable[[int, int], None] = lambda _done, _total: None,
) -> TargetFeatures:
    """Decode and trim all audio below a folder, and extract the features of its speech.

    Files are decoded, mixed and trimmed as for prediction. A recording longer than the bundle's
    window is cut into the same turns as for prediction; each counts as a clip of its own, at most
    ``turns_per_clip`` of one recording.

    Args:
        folder: searched recursively for audio, except hidden files.
        extract: takes the samples of one segment of speech, shape ``(num_samples,)``, and returns
            its features; called from many threads.
        card: of the bundle; gives the window.
        config: minimum number of clips, maximum number of turns per recording.
        threads: that decode and extract.
        on_file: called with the number of files done and of all files.

    Returns:
        The features, in the order of the files; the same for any number of threads.

    Raises:
        TrainingError: if there is no such folder, no audio in it, or too few usable clips.
    """
    content = _list(folder)
    files = content.recordings
    rows: list[Tensor] = []
    examples: list[Floats] = []
    seen: set[bytes] = set()
    skipped: dict[Skipped, list[str]] = {}
    clips = _prepare_all(files, extract, card, config.turns_per_clip, threads)
    for done, (path, clip) in enumerate(zip(files, clips, strict=True), start=1):
        if isinstance(clip, _Clip) and clip.digest not in seen:
            seen.add(clip.digest)
            rows += clip.rows
            examples += clip.segments[: _EXAMPLES - len(examples)]
        else:
            reason = "duplicate" if isinstance(clip, _Clip) else clip
            name = printable(path.relative_to(folder).as_posix())
            skipped.setdefault(reason, []).append(name)
        on_file(done, len(files))
    accepted = len(seen)
    if accepted < config.min_clips:
        counts = ", ".join(f"{len(paths)} {reason}" for reason, paths in sorted(skipped.items()))
        raise TrainingError(
            f"{accepted} of the {len(files)} audio files in {folder} are usable; at least "
            f"{config.min_clips} are required; skipped: {counts or 'none'}"
        )
    return TargetFeatures(rows, accepted, skipped, examples, content.passed_over)


@dataclass(frozen=True, slots=True, eq=False)
class _Clip:
    """A usable file: the digest of its samples, its segments of speech, and their features."""

    digest: bytes
    segments: list[Floats]
    rows: list[Tensor]


def _list(folder: Path) -> FolderContent:
    if not folder.is_dir():
        raise TrainingError(f"there is no folder {folder}")
    content = audio_files(folder)
    if not content.recordings:
        there = describe_passed_over(content.passed_over)
        raise TrainingError(
            f"{folder} holds no audio; put files into it that end in "
            f"{', '.join(sorted(AUDIO_SUFFIXES))}{f'; it holds: {there}' if there else ''}"
        )
    return content


def _prepare_all(
    files: list[Path], extract: _Extract, card: Card, most: int, threads: int
) -> Iterator[_Clip | Skipped]:
    """Prepare files in order, some of them ahead of the caller."""
    # One torch thread in each of several threads: the other way round they wait for one another.
    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        prepare = partial(_prepare, extract=extract, card=card, most=most)
        try:
            waiting = deque(pool.submit(prepare, path) for path in files[:_FILES_AT_ONCE])
            for path in files[_FILES_AT_ONCE:]:
                yield waiting.popleft().result()
                waiting.append(pool.submit(prepare, path))
            for future in waiting:
                yield future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _prepare(path: Path, *, extract: _Extract, card: Card, most: int) -> _Clip | Skipped:
    """Decode one file, cut out its speech, and extract the features."""
    try:
        recording = decode(path)
    except AudioTooLongError:
        return "too_long"
    except AudioTooShortError:
        return "too_short"
    except AudioError:
        return "undecodable"
    waveform = recording.waveforms[0]
    if waveform.duration_s < TOO_SHORT_S:
        return "too_short"
    segments = _segments(recording, card.window_s, most)
    if not segments:
        return "no_speech"
    return _Clip(_digest(waveform), segments, [extract(segment) for segment in segments])


def _digest(waveform: Waveform) -> bytes:
    """Digest of all samples, read a minute at a time: those of a long recording are in a file."""
    digest, minute = hashlib.sha256(), 60 * SAMPLE_RATE_HZ
    for start in range(0, len(waveform), minute):
        digest.update(waveform.part(start, start + minute).samples.tobytes())
    return digest.digest()


def _segments(recording: Recording, window_s: float, most: int) -> list[Floats]:
    """Turns as prediction finds them, spread over the recording if there are more than wanted.

    They are copied: a view would keep the whole recording in memory.
    """
    waveform = recording.waveforms[0]
    turns = [turn for turn in cut_turns(recording, window_s)[0].turns if turn.has_speech]
    if len(turns) > most:
        turns = [turns[index] for index in np.linspace(0, len(turns) - 1, most).round().astype(int)]
    return [turn.samples(waveform).copy() for turn in turns]
