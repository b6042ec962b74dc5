"""Streams in real time: how late a segment comes; what two hours hold; how close the answer is.

    python -m benchmarks.streaming --data DIR [--seconds 30] [--recordings 40]

The service is started as users start it. Each connection sends 20 ms of audio every 20 ms, at 8, 16
or 48 kHz in turn, and asks for a segment a second. The lag of a segment is the time from the end of
the sending of its last sample to its arrival; client and service share the machine, and whatever
else runs there delays both: the file says how much did. DIR holds
urdu/ and emodb/, of whose clips recordings with pauses are made. Needs Linux. Writes
benchmarks/results/streaming.md.
"""

import argparse
import asyncio
import io
import json
import os
import threading
import time
from pathlib import Path

import numpy as np
import soundfile
import soxr
from websockets.asyncio.client import connect

from benchmarks.provenance import ROOT, provenance, write
from benchmarks.service import Service, running_service
from nnpm.service.inference import bundle
from nnpm.service.inference.audio.decode import decode
from nnpm.service.inference.recognizer import Recognizer
from nnpm.service.inference.stream import open_stream
from nnpm.training.bundle.parts import voice

_RATES_HZ = (8_000, 16_000, 48_000)
_STEP_S = 0.02
_LONG_S = 7200


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=os.environ.get("NNPM_TEST_DATA", "data"))
    parser.add_argument("--seconds", type=int, default=30)
    parser.add_argument("--recordings", type=int, default=40)
    options = parser.parse_args()
    pressure = [_pressure()]
    head = "| connections | /predict beside | segments | median | 95 % | most |"
    rows = [head, "|" + " --- |" * 6]
    with running_service() as service:
        _lags(service, 1, 5)  # warm
        for connections, busy in ((1, False), (8, False), (16, False), (32, False), (8, True)):
            lags_ms = 1000 * np.array(_measured(service, connections, options.seconds, busy))
            shown = [f"{np.quantile(lags_ms, q):.0f} ms" for q in (0.5, 0.95, 1.0)]
            beside = "two clients" if busy else "none"
            facts = [str(connections), beside, str(len(lags_ms)), *shown]
            rows.append(f"| {' | '.join(facts)} |")
        before = service.resident_mib()
        took_s, final_bytes = asyncio.run(_long(service))
        after, most = service.resident_mib(), service.peak_mib()
    close = _closeness(options.data, options.recordings)
    rows += [
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
    write("streaming", "\n".join(rows), facts | waiting)


def _pressure() -> float:
    """Share of the last minute in which some process of the machine waited for a core."""
    text = Path("/proc/pressure/cpu").read_text()
    return float(text.split("avg60=")[1].split()[0])


def _measured(service: Service, connections: int, seconds: int, busy: bool) -> list[float]:
    over = threading.Event()
    threads = [threading.Thread(target=_ask, args=(service, over)) for _ in range(2 * busy)]
    for thread in threads:
        thread.start()
    try:
        return _lags(service, connections, seconds)
    finally:
        over.set()
        for thread in threads:
            thread.join()


def _ask(service: Service, over: threading.Event) -> None:
    file = io.BytesIO()
    soundfile.write(file, voice(170.0, 3.0, seed=1), 16_000, format="WAV", subtype="PCM_16")
    while not over.is_set():
        service.post(file.getvalue())


def _lags(service: Service, connections: int, seconds: int) -> list[float]:
    async def all_lines() -> list[list[float]]:
        lines = [_line(service, number, seconds) for number in range(connections)]
        return await asyncio.gather(*lines)

    return [lag_s for line in asyncio.run(all_lines()) for lag_s in line]


async def _line(service: Service, number: int, seconds: int) -> list[float]:
    """One connection in real time; seconds of lag of each segment."""
    rate = _RATES_HZ[number % len(_RATES_HZ)]
    audio = _pcm(np.tile(voice(120.0 + 10 * number, 3.0, seed=number), seconds // 3 + 1), rate)
    audio, step = audio[: seconds * rate], round(_STEP_S * rate)
    sent_at: list[float] = []
    lags_s: list[float] = []
    await asyncio.sleep(0.137 * number)  # lines do not begin at once
    async with connect(_url(service)) as client:
        hello = {"sample_rate_hz": rate, "channels": 1, "hop_s": 1}
        await client.send(json.dumps(hello))

        async def receive() -> None:
            while (answer := json.loads(await client.recv()))["type"] == "segment":
                last = round(answer["end_s"] / _STEP_S - 1e-6) - 1  # the message of its last sample
                lags_s.append(time.perf_counter() - sent_at[min(last, len(sent_at) - 1)])

        receiving = asyncio.create_task(receive())
        begun = time.perf_counter()
        for index in range(len(audio) // step):
            await asyncio.sleep(begun + _STEP_S * (index + 1) - time.perf_counter())
            await client.send(audio[index * step : (index + 1) * step].tobytes())
            sent_at.append(time.perf_counter())
        await client.send(json.dumps({"end": True}))
        await receiving
    return lags_s


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
    draw = np.random.default_rng(0)
    clips = sorted([*data.glob("urdu/**/*.opus"), *data.glob("emodb/**/*.*")])
    clips = [clip for clip in clips if clip.suffix in (".opus", ".flac", ".wav", ".ogg")]
    return [_difference(recognizer, _recording(clips, draw)) for _ in range(count)]


def _recording(clips: list[Path], draw: np.random.Generator) -> np.ndarray:
    parts = [1e-4 * draw.standard_normal(round(16_000 * draw.uniform(0, 8)))]
    for index in draw.integers(0, len(clips), 10):
        samples, rate = soundfile.read(clips[index], dtype="float32", always_2d=True)
        parts.append(soxr.resample(samples.mean(axis=1), rate, 16_000))
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
