import contextlib
import gc
import io
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nnpm.service.inference.audio import decode as decoding
from nnpm.service.inference.audio.decode import decode
from nnpm.service.inference.audio.resampling import LiveResampler, Resampler
from nnpm.service.inference.audio.speech import assess, trim_edges
from nnpm.service.inference.audio.waveform import SampleStore, Spool, Waveform
from nnpm.service.inference.errors import NoRoomError
from tests.support.sounds import encode, speechlike

NOISE = np.random.default_rng(0).standard_normal(100_000).astype(np.float32)


def filled(memory_bytes: int, block: int) -> np.ndarray | Spool:
    store = SampleStore(memory_bytes)
    for start in range(0, len(NOISE), block):
        store.append(NOISE[start : start + block])
    return store.finish()


@pytest.mark.parametrize("block", [1, 777, 100_000])
@pytest.mark.parametrize("memory_bytes", [0, 4_000, 399_999, 400_000])
def test_what_went_in_comes_out(memory_bytes: int, block: int) -> None:
    waveform = Waveform(filled(memory_bytes, block if memory_bytes else 50_000))
    assert len(waveform) == len(NOISE)
    assert np.array_equal(waveform.samples, NOISE)
    for start, end in ((0, 10), (99_990, 100_000), (5, 5), (1_234, 56_789), (99_999, 200_000)):
        assert np.array_equal(waveform.part(start, end).samples, NOISE[start:end])


def test_only_what_is_long_goes_into_a_file() -> None:
    assert isinstance(filled(400_000, 1_000), np.ndarray)
    assert isinstance(filled(399_999, 1_000), Spool)


def test_the_file_has_no_name_and_ends_with_its_last_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    waveform = Waveform(filled(0, 10_000))
    assert list(tmp_path.iterdir()) == []
    assert open_files(tmp_path) == 1
    del waveform
    assert open_files(tmp_path) == 0


@pytest.mark.parametrize("mode", ["mix", "split"])
@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_where_samples_are_kept_does_not_show(
    monkeypatch: pytest.MonkeyPatch, rate: int, mode: Any
) -> None:
    clip = encode(np.stack([speechlike(5, rate), speechlike(5, rate, seed=1)], axis=1), rate)
    held = decode(clip, channels=mode)
    monkeypatch.setattr(decoding, "MEMORY_BYTES", 1_000)
    spooled = decode(clip, channels=mode)
    assert held.info == spooled.info
    for one, other in zip(held.waveforms, spooled.waveforms, strict=True):
        assert np.array_equal(one.samples, other.samples)
        assert assess(one) == assess(other)
        assert np.array_equal(trim_edges(one).samples, trim_edges(other).samples)


def test_a_full_disk_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    full = Path("/dev/full")
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: full.open("r+b", buffering=0))
    monkeypatch.setattr(decoding, "MEMORY_BYTES", 1_000)
    with pytest.raises(NoRoomError, match="no room for more than 0 MB"):
        decode(io.BytesIO(encode(speechlike())))
    gc.collect()
    assert open_files(full) == 0


def test_a_missing_folder_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    with pytest.raises(NoRoomError):
        filled(0, 1_000)


def open_files(under: Path) -> int:
    """How many descriptors of this process are of this file, or of files in this folder."""
    targets = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # that of the listing itself
            targets.append(descriptor.readlink())
    return sum(target.is_relative_to(under) for target in targets)


@pytest.mark.parametrize("rate_hz", [2_000, 8_000, 11_025, 11_127, 16_000, 44_100, 48_000, 192_000])
def test_live_resampling_gives_the_same_samples_sooner(rate_hz: int) -> None:
    draw = np.random.default_rng(rate_hz)
    block = draw.uniform(-0.9, 0.9, (2 * rate_hz, 1)).astype(np.float32)
    whole = Resampler(rate_hz, 1)
    expected = np.concatenate([whole.push(block), whole.flush()])
    live = LiveResampler(rate_hz)
    parts, given, sent = [], 0, 0
    while sent < len(block):
        size = int(draw.integers(1, rate_hz // 4))
        parts.append(live.push(block[sent : sent + size]))
        sent, given = min(sent + size, len(block)), given + len(parts[-1])
        held_s = sent / rate_hz - given / 16_000
        assert -1e-9 <= held_s < 0.002 + 104 / min(rate_hz, 16_000)
    found = np.concatenate([*parts, live.flush()])
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert not len(live.flush())


def test_live_resampling_holds_no_more_than_a_second() -> None:
    live = LiveResampler(44_101)  # one frame in 44,101 falls together with a sample
    for _ in range(500):
        live.push(np.zeros((882, 1), np.float32))
    assert len(live._frames) < 2 * 44_101
