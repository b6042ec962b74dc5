"""Streams in real time: how late a segment comes; what two hours hold; how close the answer is.

    python -m benchmarks.streaming --data DIR [--seconds 30] [--recordings 40]

The service is started as users start it, on two cores. Each connection sends 20 ms of audio every
20 ms, at 8, 16 or 48 kHz in turn, and takes a segment per turn, as is the default, or asks for one
a second, of the 6 s before it. The lag of a segment is the time from the sending of the last sample
that it needs to its arrival; a turn needs the pause that ends it, 0.3 s or what the rules for turns
take to be sure, which they do in this process too. Client and service share
the machine, and whatever else runs there delays both: the file says how much did. DIR holds urdu/
and emodb/, whose clips are sent with pauses between them. Needs Linux. Writes
benchmarks/results/streaming.md.
"""

import argparse
import asyncio
import io
import json
import math
import os
import threading
import time
from pathlib import Path

import numpy as np
import soundfile
import soxr
from websockets.asyncio.client import connect

from benchmarks.provenance import ROOT, machine_load, provenance, write
from benchmarks.service import Service, running_service
from nnpm.service.inference import bundle
from nnpm.service.inference.audio.decode import decode
from nnpm.service.inference.audio.waveform import Waveform
from nnpm.service.inference.recognizer import Recognizer
from nnpm.service.inference.stream import open_stream
from nnpm.service.inference.turns import TurnFinder
from nnpm.training.bundle.parts import voice

_RATES_HZ = (8_000, 16_000, 48_000)
_STEP_S = 0.02
_LONG_S = 7200

CORES = 2
_MOST = 32
GOAL_MS = (100, 250)
_CASES = (
    (1, None, False), (32, None, False), (32, None, True),
    (1, 1.0, False), (8, 1.0, False), (32, 1.0, False), (8, 1.0, True),
)  # fmt: skip
"""Connections, seconds from segment to segment (None: per turn), and whether others ask too."""


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=os.environ.get("NNPM_TEST_DATA", "data"))
    parser.add_argument("--seconds", type=int, default=30)
    parser.add_argument("--recordings", type=int, default=40)
    options = parser.parse_args()
    pressure = [_pressure()]
    head = (
        "| connections | a segment | /predict beside | segments | median | 95 % | most "
        "| CPU of the service, cores | of the clients |"
    )
    rows = [head, "|" + " --- |" * 9]
    clips = _clips(options.data)
    lines = [_call(clips, number, options.seconds) for number in range(_MOST)]
    with running_service() as service:
        os.sched_setaffinity(service.pid, sorted(os.sched_getaffinity(0))[:CORES])
        _lags(service, [lines[0][: 5 * 16_000]], 1.0)  # warm
        for connections, hop_s, busy in _CASES:
            row = _row(service, lines[:connections], hop_s, busy=busy)
            rows.append(f"| {' | '.join(row)} |")
        before = service.resident_mib()
        took_s, final_bytes = asyncio.run(_long(service))
        after, most = service.resident_mib(), service.peak_mib()
    close = _closeness(options.data, options.recordings)
    rows += [
        "",
        f"Goal: {GOAL_MS[0]} ms in the median and {GOAL_MS[1]} ms at most, 32 connections on "
        f"{CORES} cores.",
        "",
        f"Two hours in one stream, as fast as the service takes it: {took_s:.0f} s. Resident "
        f"memory {before:.0f} MiB before, {after:.0f} MiB after, {most:.0f} MiB at most; the final "
        f"answer has {final_bytes / 1024:.0f} KiB.",
        "",
        f"The final answer beside that of the whole recording, {len(close)} recordings of "
        "clips with pauses, half a minute to a minute: largest difference of a score "
        f"{np.median(close):.4f} in the median, {np.quantile(close, 0.9):.4f} in nine of ten, "
        f"{max(close):.4f} at most.",
    ]
    facts = provenance(
        f"python -m benchmarks.streaming --data DIR --seconds {options.seconds} "
        f"--recordings {options.recordings}"
    )
    shares = " and ".join(f"{share:.0f} %" for share in [*pressure, _pressure()])
    waiting = {"time in which something waited for a core, before and after": shares}
    write("streaming", "\n".join(rows), facts | waiting | machine_load())


def _pressure() -> float:
    """Share of the last minute in which some process of the machine waited for a core."""
    text = Path("/proc/pressure/cpu").read_text()
    return float(text.split("avg60=")[1].split()[0])


def _row(
    service: Service, lines: list[np.ndarray], hop_s: float | None, *, busy: bool
) -> list[str]:
    before_s, own_s, began = service.cpu_s(), time.process_time(), time.perf_counter()
    lags_ms = 1000 * np.array(_measured(service, lines, hop_s, busy=busy))
    took_s = time.perf_counter() - began
    cores = [(service.cpu_s() - before_s) / took_s, (time.process_time() - own_s) / took_s]
    return [
        str(len(lines)),
        "per turn" if hop_s is None else f"every {hop_s:g} s",
        "two clients" if busy else "none",
        str(len(lags_ms)),
        *(f"{np.quantile(lags_ms, q):.0f} ms" for q in (0.5, 0.95, 1.0)),
        *(f"{one:.2f}" for one in cores),
    ]


def _measured(
    service: Service, lines: list[np.ndarray], hop_s: float | None, *, busy: bool
) -> list[float]:
    over = threading.Event()
    threads = [threading.Thread(target=_ask, args=(service, over)) for _ in range(2 * busy)]
    for thread in threads:
        thread.start()
    try:
        return _lags(service, lines, hop_s)
    finally:
        over.set()
        for thread in threads:
            thread.join()


def _ask(service: Service, over: threading.Event) -> None:
    file = io.BytesIO()
    soundfile.write(file, voice(170.0, 3.0, seed=1), 16_000, format="WAV", subtype="PCM_16")
    while not over.is_set():
        service.post(file.getvalue())


def _lags(service: Service, lines: list[np.ndarray], hop_s: float | None) -> list[float]:
    async def all_lines() -> list[list[float]]:
        sent = [_line(service, number, samples, hop_s) for number, samples in enumerate(lines)]
        return await asyncio.gather(*sent)

    return [lag_s for line in asyncio.run(all_lines()) for lag_s in line]


async def _line(
    service: Service, number: int, samples: np.ndarray, hop_s: float | None
) -> list[float]:
    """One connection in real time; seconds of lag of each segment."""
    rate = _RATES_HZ[number % len(_RATES_HZ)]
    audio, step = _pcm(samples, rate), round(_STEP_S * rate)
    ends_s = _ends_s(audio, rate)
    sent_at: list[float] = []
    lags_s: list[float] = []
    await asyncio.sleep(0.137 * number)  # lines do not begin at once
    async with connect(_url(service)) as client:
        hello: dict[str, float] = {"sample_rate_hz": rate, "channels": 1}
        await client.send(json.dumps(hello if hop_s is None else hello | {"hop_s": hop_s}))

        async def receive() -> None:
            while (answer := json.loads(await client.recv()))["type"] == "segment":
                needed_s = answer["end_s"] if hop_s else ends_s.get(answer["end_s"])
                if needed_s is None:  # cut otherwise: the samples differ by their rounding
                    continue
                last = math.ceil(needed_s / _STEP_S - 1e-6) - 1  # the message of its last sample
                if last < len(sent_at):  # or the end of the stream has ended it
                    lags_s.append(time.perf_counter() - sent_at[last])

        receiving = asyncio.create_task(receive())
        begun = time.perf_counter()
        for index in range(len(audio) // step):
            await asyncio.sleep(begun + _STEP_S * (index + 1) - time.perf_counter())
            await client.send(audio[index * step : (index + 1) * step].tobytes())
            sent_at.append(time.perf_counter())
        await client.send(json.dumps({"end": True}))
        await receiving
    return lags_s


def _ends_s(audio: np.ndarray, rate: int) -> dict[float, float]:
    """By the end of each turn: until when its audio has to arrive, in seconds."""
    samples = audio.astype(np.float32) / 32768
    if rate != 16_000:
        samples = soxr.resample(samples, rate, 16_000)
    waveform, finder, ends_s = Waveform(samples), TurnFinder(), {}
    while (due := finder.due) <= len(waveform):
        for turn in finder.push(waveform.part(finder.arrived, due)):
            ends_s[round(turn.end / 16_000, 3)] = due / 16_000
    return ends_s


def _call(clips: list[Path], number: int, seconds: int) -> np.ndarray:
    """One side of a call at 16 kHz: clips, with pauses of 0.5 to 2 s between them."""
    draw = np.random.default_rng(number)
    parts: list[np.ndarray] = []
    while sum(map(len, parts)) < 16_000 * seconds:
        parts.append(_samples(clips[draw.integers(len(clips))]))
        parts.append(1e-4 * draw.standard_normal(round(16_000 * draw.uniform(0.5, 2.0))))
    return np.concatenate(parts)[: 16_000 * seconds]


async def _long(service: Service) -> tuple[float, int]:
    """Two hours at once; the seconds that they take, and the size of the answer."""
    minute = _pcm(np.tile(voice(140.0, 3.0, seed=3), 20), 16_000).tobytes()
    begun = time.perf_counter()
    async with connect(_url(service), max_size=None) as client:
        await client.send(json.dumps({"sample_rate_hz": 16_000, "channels": 1}))

        async def receive() -> int:
            while True:
                text = await client.recv()
                if json.loads(text)["type"] != "segment":
                    return len(text)

        receiving = asyncio.create_task(receive())
        for _ in range(_LONG_S // 60):
            for piece in range(0, len(minute), 64_000):
                await client.send(minute[piece : piece + 64_000])
        await client.send(json.dumps({"end": True}))
        return time.perf_counter() - begun, await receiving


def _closeness(data: Path, count: int) -> list[float]:
    """Largest difference of a score, stream beside recording, of made recordings."""
    recognizer = Recognizer(bundle.load(ROOT / "models/default/2"))
    draw, clips = np.random.default_rng(0), _clips(data)
    return [_difference(recognizer, _recording(clips, draw)) for _ in range(count)]


def _clips(data: Path) -> list[Path]:
    clips = sorted([*data.glob("urdu/**/*.opus"), *data.glob("emodb/**/*.*")])
    return [clip for clip in clips if clip.suffix in (".opus", ".flac", ".wav", ".ogg")]


def _samples(clip: Path) -> np.ndarray:
    samples, rate = soundfile.read(clip, dtype="float32", always_2d=True)
    found: np.ndarray = soxr.resample(samples.mean(axis=1), rate, 16_000)
    return found


def _recording(clips: list[Path], draw: np.random.Generator) -> np.ndarray:
    parts = [1e-4 * draw.standard_normal(round(16_000 * draw.uniform(0, 8)))]
    for index in draw.integers(0, len(clips), 10):
        parts.append(_samples(clips[index]))
        parts.append(1e-4 * draw.standard_normal(round(16_000 * draw.uniform(0.1, 3))))
    return _pcm(np.concatenate(parts), 16_000)


def _difference(recognizer: Recognizer, audio: np.ndarray) -> float:
    stream = open_stream(recognizer, rate_hz=16_000, channels=1)
    for begin in range(0, len(audio), 1600):
        stream.push(audio[begin : begin + 1600, None])
    streamed = stream.finish().scores
    file = io.BytesIO()
    soundfile.write(file, audio, 16_000, format="WAV", subtype="PCM_16")
    whole = recognizer.answer(decode(file.getvalue())).scores
    return max(abs(streamed[emotion] - whole[emotion]) for emotion in whole)


def _pcm(samples: np.ndarray, rate: int) -> np.ndarray:
    if rate != 16_000:
        samples = soxr.resample(samples, 16_000, rate)
    return np.round(np.clip(samples, -1, 1) * 32767).astype("<i2")


def _url(service: Service) -> str:
    return f"ws://127.0.0.1:{service.port}/stream"


if __name__ == "__main__":
    main()
