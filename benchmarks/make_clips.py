"""The files that a soak sends: recordings of many lengths and formats, and some bad files."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from nnpm.training.bundle.parts import SAMPLE_RATE_HZ, voice

FORMATS = (
    ("WAV", "PCM_16", 16_000, 1),
    ("WAV", "PCM_16", 44_100, 2),
    ("WAV", "ULAW", 8_000, 1),
    ("FLAC", "PCM_16", 48_000, 2),
    ("OGG", "OPUS", 48_000, 1),
    ("OGG", "VORBIS", 44_100, 2),
    ("MP3", "MPEG_LAYER_III", 44_100, 1),
)
CLASSES = ((0.90, 0.3, 10.0, 30), (0.09, 10.0, 60.0, 10), (0.01, 60.0, 600.0, 5))
"""Share of the clips, seconds from and to (evenly in their logarithm), files made of each."""

BAD_SHARE = 0.05


@dataclass(frozen=True, slots=True)
class Clip:
    """One file of the pool, and the statuses that it may be answered with."""

    path: Path
    name: str
    expected: frozenset[int]


def make_pool(folder: Path, seed: int) -> tuple[list[list[Clip]], list[Clip]]:
    """Write the files; the good ones by class, and the bad ones."""
    rng = np.random.default_rng(seed)
    minute = voice(150.0, 60.0, seed=seed)
    classes = []
    for number, (_, low_s, high_s, count) in enumerate(CLASSES):
        lengths_s = np.exp(np.linspace(np.log(low_s), np.log(high_s), count))
        kinds = rng.permutation(np.arange(count) % len(FORMATS))
        made = [
            _good(folder, f"{number}-{place}", minute, float(length_s), FORMATS[kind])
            for place, (length_s, kind) in enumerate(zip(lengths_s, kinds, strict=True))
        ]
        classes.append(made)
    return classes, list(_bad(folder, classes[0]))


def draw(pool: tuple[list[list[Clip]], list[Clip]], count: int, seed: int) -> Iterator[Clip]:
    """Draw so many clips, good and bad, short and long, in a mixed order."""
    classes, bad = pool
    rng = np.random.default_rng(seed)
    shares = [share for share, *_ in CLASSES]
    for _ in range(count):
        if rng.random() < BAD_SHARE:
            yield bad[rng.integers(len(bad))]
        else:
            chosen = classes[rng.choice(len(classes), p=shares)]
            yield chosen[rng.integers(len(chosen))]


def _good(
    folder: Path,
    name: str,
    minute: np.ndarray,
    length_s: float,
    kind: tuple[str, str, int, int],
) -> Clip:
    container, subtype, rate, num_channels = kind
    path = folder / f"{name}.{container.lower()}"
    step = SAMPLE_RATE_HZ / rate
    whole = np.interp(np.arange(round(60 * rate)) * step, np.arange(len(minute)), minute)
    left = round(length_s * rate)
    with soundfile.SoundFile(path, "w", rate, num_channels, subtype, format=container) as out:
        while left > 0:
            piece = whole[:left].astype(np.float32)
            out.write(np.repeat(piece[:, None], num_channels, axis=1))
            left -= len(piece)
    return Clip(path, f"{container} {subtype} {length_s:.1f} s", frozenset({200}))


def _bad(folder: Path, good: list[Clip]) -> Iterator[Clip]:
    refused = frozenset({413, 415, 422})
    nan = io.BytesIO()
    soundfile.write(nan, np.full(16_000, np.nan, np.float32), 16_000, "FLOAT", format="WAV")
    wav = next(clip.path for clip in good if clip.path.suffix == ".wav").read_bytes()
    flac = next(clip.path for clip in good if clip.path.suffix == ".flac").read_bytes()
    contents = {
        "nothing": b"",
        "text": b"this is no recording\n" * 200,
        "50 ms": wav[: 44 + 1600],
        "half a FLAC": flac[: len(flac) // 2],
        "not numbers": nan.getvalue(),
        "junk that says RIFF": b"RIFF" + bytes(200_000),
        "2 MB of zeros": bytes(2_000_000),
    }
    for name, content in contents.items():
        path = folder / name.replace(" ", "-")
        path.write_bytes(content)
        yield Clip(path, name, refused if name != "50 ms" else refused | {200})
