"""Long recordings over HTTP, to a real process: memory, order, and nothing left behind."""

import io
import json
import urllib.error
import urllib.request
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.support.servers import Server
from tests.support.sounds import long_flac, speechlike, with_flac_length

RATE = 8_000
HELD_MIB = 16  # see service/inference/audio/decode.py


@pytest.fixture(autouse=True)
def _half_an_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NNPM_MAX_DURATION_S", str(2400))


def peak_mib(process: int) -> float:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))


def post(address: str, body: bytes, query: str = "") -> dict:
    request = urllib.request.Request(
        f"{address}/predict{query}", data=body, headers={"Content-Type": "audio/wav"}
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)


def call(minutes: int) -> bytes:
    """Stereo: one minute of syllables on the left, one of silence on both, one on the right."""
    speech, silence = speechlike(60, RATE), np.zeros(60 * RATE)
    minutes_of = [(speech, silence), (silence, silence), (silence, speech)]
    file = io.BytesIO()
    with soundfile.SoundFile(file, "w", RATE, 2, format="WAV", subtype="PCM_16") as stream:
        for minute in range(minutes):
            stream.write(np.stack(minutes_of[minute % 3], axis=1))
    return file.getvalue()


@pytest.mark.slow
def test_memory_does_not_grow_with_the_length(server: Server, tmp_path: Path) -> None:
    process, address = server.process, server.address
    post(address, call(3), "?channels=split")
    before = peak_mib(process.pid)
    answer = post(address, call(15), "?channels=split")
    # 15 minutes of two channels are 115 MB of samples; 16 MB of them are held.
    assert peak_mib(process.pid) - before < HELD_MIB + 32
    assert answer["audio"]["duration_s"] == 900
    for channel, first_s in ((0, 0), (1, 120)):
        times = [one["start_s"] for one in answer["segments"] if one["channel"] == channel]
        assert times == sorted(times)
        assert times[0] == pytest.approx(first_s, abs=0.5)
        entries = [one for one in answer["timeline"] if one["channel"] == channel]
        assert all(one["end_s"] <= following["start_s"] for one, following in pairwise(entries))
        spoken_s = sum(one["end_s"] - one["start_s"] for one in entries)
        assert spoken_s == pytest.approx(5 * 60, rel=0.05)
    assert list(tmp_path.glob("tmp*")) == []
    assert deleted_files(process.pid, tmp_path) == []


@pytest.mark.slow
def test_a_refused_recording_leaves_nothing_behind(server: Server, tmp_path: Path) -> None:
    process, address = server.process, server.address
    silence = with_flac_length(long_flac(3000), 0)  # it does not say that it is so long
    for body, status in ((silence, 413), (long_flac(900)[:-10_000], 422)):
        with pytest.raises(urllib.error.HTTPError) as caught:
            post(address, body)
        assert caught.value.code == status
        caught.value.close()
    assert list(tmp_path.glob("tmp*")) == []
    assert deleted_files(process.pid, tmp_path) == []


def deleted_files(process: int, folder: Path) -> list[str]:
    """Files of a folder that the process holds open although they have no name any more."""
    links = [str(link.readlink()) for link in Path(f"/proc/{process}/fd").iterdir()]
    return [link for link in links if link.startswith(str(folder)) and "(deleted)" in link]
