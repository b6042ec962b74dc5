"""The target: clips of a folder, pooled as recorded and in augmented views, and a few labels."""

import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from ...service.inference.audio.decode import decode
from ...service.inference.audio.formats import (
    AUDIO_SUFFIXES,
    FolderContent,
    PassedOver,
    audio_files,
    describe_passed_over,
)
from ...service.inference.audio.waveform import SAMPLE_RATE_HZ, Recording, Waveform
from ...service.inference.errors import AudioError, AudioTooLongError, AudioTooShortError, printable
from ...service.inference.graphs import open_session
from ...service.inference.segments import TOO_SHORT_S, cut_turns
from ...service.jobs.folder import Channels
from ..data.augment import Augmentation
from ..errors import TrainingError
from .config import AdaptConfig
from .head import Floats, Ints, Target

Skipped = Literal[
    "undecodable", "too_long", "too_short", "no_speech", "duplicate", "lacks_the_channel"
]
"""Why a file is not used."""

_FILES_AT_ONCE = 32  # decoded ahead; more would only need more memory


class Encoder:
    """Pools clips with a bundle's own graph, each as recorded and in augmented views.

    The features are those of the service: same graph, one clip at a time, so that nothing is
    padded. Instances are thread-safe: the draws for a clip depend only on its samples and the seed.

    Args:
        graph: file of ``model.onnx``, or its bytes.
        num_views: augmented versions of each clip.
        seed: of the views.
    """

    def __init__(self, graph: Path | bytes, num_views: int, seed: int) -> None:
        self._session = open_session(graph)
        self._augment = Augmentation()
        self._num_views, self._seed = num_views, seed

    def __call__(self, samples: Floats) -> Floats:
        """Pool one clip.

        Args:
            samples: float32 in [-1, 1] at 16 kHz, shape ``(num_samples,)``.

        Returns:
            Shape ``(1 + num_views, D)``; the first row is the clip as recorded.
        """
        digest = hashlib.sha256(self._seed.to_bytes(8) + samples.tobytes()).digest()
        rng = np.random.default_rng(int.from_bytes(digest))
        views = [samples, *(self._augment(samples, rng) for _ in range(self._num_views))]
        return np.stack([self._pool(view) for view in views])

    def _pool(self, samples: Floats) -> Floats:
        lengths = np.array([len(samples)], np.int64)
        inputs = {"waveform": samples[None], "lengths": lengths}
        (embedding,) = self._session.run(["embedding"], inputs)
        pooled: Floats = embedding[0]
        return pooled


@dataclass(frozen=True, slots=True, eq=False)
class TargetFeatures:
    """The features of a folder of audio.

    Attributes:
        rows: one per segment of speech, shape ``(1 + num_views, D)``.
        clip: for each row, which of ``names`` it is of.
        names: files that were used, relative to the folder.
        skipped: files that were not used, by reason.
        passed_over: files of the folder that are no recordings, by reason.
    """

    rows: list[Floats]
    clip: Ints
    names: list[str]
    skipped: dict[Skipped, list[str]]
    passed_over: PassedOver

    def target(self, occurs: tuple[int, ...] = ()) -> Target:
        """The rows of :class:`Encoder` as one target set, of which these emotions are known."""
        together = np.stack(self.rows, axis=1)
        return Target(together[0], together[1:], occurs)


def extract_features(
    folder: Path,
    encoder: Callable[[Floats], Floats],
    window_s: float,
    config: AdaptConfig,
    *,
    threads: int,
    channels: Channels = "mix",
    on_file: Callable[[int, int], None] = lambda _done, _total: None,
) -> TargetFeatures:
    """Decode and trim all audio below a folder, and extract the features of its speech.

    Files are decoded and trimmed as for prediction. A recording longer than the bundle's window is
    cut into the same turns as for prediction; each counts as a clip of its own, at most
    ``turns_per_clip`` of one recording, spread over its length.

    Args:
        folder: searched recursively for audio, except hidden files.
        encoder: takes the samples of one segment of speech, shape ``(num_samples,)``, and returns
            its features; called from many threads.
        window_s: of the bundle.
        config: minimum number of clips, maximum number of turns per recording.
        threads: that decode and extract.
        channels: the mix, each channel by itself, or one.
        on_file: called with the number of files done and of all files.

    Returns:
        The features, in the order of the files; the same for any number of threads.

    Raises:
        TrainingError: if there is no such folder, no audio in it, or too few usable clips.
    """
    content = _list(folder)
    files = content.recordings
    rows: list[Floats] = []
    clip_of: list[int] = []
    names: list[str] = []
    seen: set[bytes] = set()
    skipped: dict[Skipped, list[str]] = {}
    prepare = partial(
        _prepare, encoder=encoder, window_s=window_s, most=config.turns_per_clip, channels=channels
    )
    clips = _prepare_all(files, prepare, threads)
    for done, (path, clip) in enumerate(zip(files, clips, strict=True), start=1):
        name = path.relative_to(folder).as_posix()
        if isinstance(clip, _Clip) and clip.digest not in seen:
            seen.add(clip.digest)
            rows += clip.rows
            clip_of += [len(names)] * len(clip.rows)
            names.append(name)
        else:
            reason = "duplicate" if isinstance(clip, _Clip) else clip
            skipped.setdefault(reason, []).append(printable(name))
        on_file(done, len(files))
    if len(names) < config.min_clips:
        counts = ", ".join(f"{len(paths)} {reason}" for reason, paths in sorted(skipped.items()))
        turns = f" ({len(rows)} turns, but a recording counts once, however long it is)"
        raise TrainingError(
            f"{len(names)} of the {len(files)} audio files in {folder} are usable"
            f"{turns if len(rows) > len(names) else ''}; at least "
            f"{config.min_clips} are required; skipped: {counts or 'none'}"
        )
    return TargetFeatures(rows, np.array(clip_of, np.int64), names, skipped, content.passed_over)


@dataclass(frozen=True, slots=True, eq=False)
class _Clip:
    """A usable file: the digest of its samples, and the features of its segments of speech."""

    digest: bytes
    rows: list[Floats]


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
    files: list[Path], prepare: Callable[[Path], "_Clip | Skipped"], threads: int
) -> Iterator[_Clip | Skipped]:
    """Prepare files in order, some of them ahead of the caller."""
    with ThreadPoolExecutor(threads) as pool:
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


def _prepare(
    path: Path,
    *,
    encoder: Callable[[Floats], Floats],
    window_s: float,
    most: int,
    channels: Channels,
) -> _Clip | Skipped:
    """Decode one file, cut out its speech, and extract the features."""
    try:
        recording = decode(path, channels="mix" if channels == "mix" else "split")
    except AudioTooLongError:
        return "too_long"
    except AudioTooShortError:
        return "too_short"
    except AudioError:
        return "undecodable"
    try:
        if recording.waveforms[0].duration_s < TOO_SHORT_S:
            return "too_short"
        if isinstance(channels, int) and channels >= len(recording.waveforms):
            return "lacks_the_channel"
        segments = _segments(recording, window_s, most, channels)
        if not segments:
            return "no_speech"
        return _Clip(_digest(recording.waveforms), [encoder(samples) for samples in segments])
    finally:
        recording.close()


def _digest(waveforms: tuple[Waveform, ...]) -> bytes:
    """Digest of all samples, read a minute at a time: those of a long recording are in a file."""
    digest, minute = hashlib.sha256(), 60 * SAMPLE_RATE_HZ
    for waveform in waveforms:
        for start in range(0, len(waveform), minute):
            digest.update(waveform.part(start, start + minute).samples.tobytes())
    return digest.digest()


def _segments(
    recording: Recording, window_s: float, most: int, channels: Channels
) -> Iterator[Floats] | list[Floats]:
    """Turns as prediction finds them, spread over the recording if there are more than wanted.

    They are copied: a view would keep the whole recording in memory.
    """
    cuts = cut_turns(recording, window_s)
    wanted = [channels] if isinstance(channels, int) else range(len(cuts))
    turns = sorted(
        (
            (turn.start, index, turn)
            for index in wanted
            for turn in cuts[index].turns
            if turn.has_speech
        ),
        key=lambda found: found[:2],
    )
    if len(turns) > most:
        turns = [turns[index] for index in np.linspace(0, len(turns) - 1, most).round().astype(int)]
    return [turn.samples(recording.waveforms[index]).copy() for _, index, turn in turns]


def with_labels(target: Target, features: TargetFeatures, labels: Mapping[str, int]) -> Target:
    """Put labels into a target: each turn of a labelled recording gets its emotion.

    Args:
        target: of ``features``.
        features: say which row is of which recording.
        labels: index of the emotion by path, relative to the folder; recordings that were not used
            are left out.
    """
    given = np.array([labels.get(features.names[clip], -1) for clip in features.clip], np.int64)
    labelled = np.flatnonzero(given >= 0)
    return replace(target, labelled=labelled, emotion=given[labelled])
