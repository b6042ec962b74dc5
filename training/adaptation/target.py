"""A folder of unlabelled audio: what of it can be learnt from, and its pooled features."""

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

from service.inference.audio import SAMPLE_RATE_HZ, Waveform, decode
from service.inference.card import Card
from service.inference.errors import AudioError, AudioTooLongError, AudioTooShortError
from service.inference.files import AUDIO_SUFFIXES, audio_files
from service.inference.quality import assess, speech_bounds
from service.inference.recognizer import TOO_SHORT_S
from service.inference.windows import windows
from training.adaptation.config import AdaptConfig
from training.adaptation.material import Target
from training.errors import TrainingError

Skipped = Literal["undecodable", "too_long", "too_short", "no_speech", "duplicate"]
"""Why a file is left out."""

Floats = NDArray[np.float32]
_Listen = Callable[[Floats], Tensor]

_FILES_AT_ONCE = 32  # decoded and waiting; more would only fill the memory
_EXAMPLES = 24  # stretches of speech kept to compare the graphs with torch


@dataclass(frozen=True, slots=True, eq=False)
class Heard:
    """What was found in a folder.

    Attributes:
        rows: what the listener made of each stretch of speech.
        accepted: files that it comes from.
        skipped: files left out, relative to the folder, by reason.
        examples: some of the stretches, as samples.
    """

    rows: list[Tensor]
    accepted: int
    skipped: dict[Skipped, list[str]]
    examples: list[Floats]

    def target(self) -> Target:
        """The rows of a :class:`training.adaptation.views.Listener`, stacked."""
        together = torch.stack(self.rows, dim=1)
        return Target(together[0], together[1:])


def hear(
    folder: Path,
    listener: _Listen,
    card: Card,
    config: AdaptConfig,
    *,
    threads: int,
    on_file: Callable[[int, int], None] = lambda _done, _total: None,
) -> Heard:
    """Decode and trim all audio below a folder, and listen to it.

    Files are decoded, mixed and trimmed as for prediction. A recording longer than the bundle's
    window is cut into the windows that prediction cuts it into; of those that hold speech the
    first ``windows_per_clip`` count as clips of their own.

    Args:
        folder: searched recursively; hidden files, and all that is no audio, are not looked at.
        listener: takes the samples of one stretch of speech; called from many threads.
        card: of the bundle; gives the windows.
        config: how many clips at least, how many windows of a clip at most.
        threads: that decode and listen.
        on_file: called with the files done and the files in all.

    Raises:
        TrainingError: if there is no such folder, no audio in it, or too few usable clips.
    """
    files = _list(folder)
    rows: list[Tensor] = []
    examples: list[Floats] = []
    seen: set[bytes] = set()
    skipped: dict[Skipped, list[str]] = {}
    clips = _prepare_all(files, listener, card, config.windows_per_clip, threads)
    for done, (path, clip) in enumerate(zip(files, clips, strict=True), start=1):
        if isinstance(clip, _Clip) and clip.digest not in seen:
            seen.add(clip.digest)
            rows += clip.rows
            examples += clip.stretches[: _EXAMPLES - len(examples)]
        else:
            reason = "duplicate" if isinstance(clip, _Clip) else clip
            skipped.setdefault(reason, []).append(path.relative_to(folder).as_posix())
        on_file(done, len(files))
    accepted = len(seen)
    if accepted < config.min_clips:
        counts = ", ".join(f"{len(paths)} {reason}" for reason, paths in sorted(skipped.items()))
        raise TrainingError(
            f"{accepted} of the {len(files)} audio files in {folder} are usable, and "
            f"{config.min_clips} are wanted; skipped: {counts or 'none'}"
        )
    return Heard(rows, accepted, skipped, examples)


@dataclass(frozen=True, slots=True, eq=False)
class _Clip:
    """A usable file: the digest of its samples, its stretches of speech, and what was heard."""

    digest: bytes
    stretches: list[Floats]
    rows: list[Tensor]


def _list(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise TrainingError(f"{folder}: there is no such folder")
    files = audio_files(folder)
    if not files:
        raise TrainingError(
            f"{folder} holds no audio; looked for {', '.join(sorted(AUDIO_SUFFIXES))}"
        )
    return files


def _prepare_all(
    files: list[Path], listener: _Listen, card: Card, most: int, threads: int
) -> Iterator[_Clip | Skipped]:
    """Prepare files in order, some ahead of what is asked for."""
    # Several threads of one torch operation each: the other way round, they wait for one another.
    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        prepare = partial(_prepare, listener=listener, card=card, most=most)
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


def _prepare(path: Path, *, listener: _Listen, card: Card, most: int) -> _Clip | Skipped:
    """Decode one file, cut out its speech, and listen to it."""
    try:
        waveform = decode(path).waveforms[0]
    except AudioTooLongError:
        return "too_long"
    except AudioTooShortError:
        return "too_short"
    except AudioError:
        return "undecodable"
    if waveform.duration_s < TOO_SHORT_S:
        return "too_short"
    stretches = _stretches(waveform, card, most)
    if not stretches:
        return "no_speech"
    return _Clip(_digest(waveform), stretches, [listener(stretch) for stretch in stretches])


def _digest(waveform: Waveform) -> bytes:
    """Of all samples, a minute at a time: those of a long recording are in a file."""
    digest, minute = hashlib.sha256(), 60 * SAMPLE_RATE_HZ
    for start in range(0, len(waveform), minute):
        digest.update(waveform.part(start, start + minute).samples.tobytes())
    return digest.digest()


def _stretches(waveform: Waveform, card: Card, most: int) -> list[Floats]:
    """The first windows that hold speech, as copies: a view would keep the whole recording."""
    quality = assess(waveform)
    if not quality.has_speech:
        return []
    start, stop = speech_bounds(waveform, quality)
    window, hop = (round(seconds * SAMPLE_RATE_HZ) for seconds in (card.window_s, card.hop_s))
    cuts = windows(stop - start, window, min(hop, window))
    found: list[Floats] = []
    for begin, end in cuts:
        stretch = waveform.part(start + begin, start + end)
        if len(cuts) == 1 or assess(stretch).has_speech:
            found.append(stretch.samples.copy())
        if len(found) == most:
            break
    return found
