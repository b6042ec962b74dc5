"""A call of an hour, by ``nnpm predict`` and sent to a real service: speed, memory, and answers.

    python -m benchmarks.long_audio --data DIR [--minutes 60] [--command-only]

Command and service run on one core with one worker; DIR holds corpora with a metadata.csv each.
The answers to music and silence are compared with what the call was made of. Linux only (it reads
/proc). Writes benchmarks/results/long_audio.md.
"""

import argparse
import io
import json
import os
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import soundfile
import soxr

from benchmarks.bulk import scored
from benchmarks.make_call import Section, build, holds
from benchmarks.provenance import machine_load, provenance, write
from benchmarks.service import running_service


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--command-only", action="store_true", help="two formats, no service")
    options = parser.parse_args()
    call, truth = build(options.data, 60 * options.minutes, seed=0)
    commands, rows, outcomes = [], [], []
    for name, query, body in _cases(call):
        if name in _BY_COMMAND:
            split = "split" in query
            answer, row = _by_command(body, *(("--channels", "split") if split else ()))
            commands.append(f"| {name} | {row} |")
            if options.command_only:
                outcomes.append(f"| {name} | {' | '.join(_outcomes(answer, truth, split))} |")
        if options.command_only:
            if len(commands) == len(_BY_COMMAND):
                break
            continue
        with running_service({"NNPM_WORKERS": "1"}) as service:
            os.sched_setaffinity(service.pid, {min(os.sched_getaffinity(0))})
            idle, cpu_s, start = service.resident_mib(), service.cpu_s(), time.monotonic()
            answer = _post(f"{service.address}/predict{query}", body)
            wall_s = time.monotonic() - start
            cpu_s = service.cpu_s() - cpu_s
            peak = service.peak_mib()
        length_s = answer["audio"]["duration_s"]
        rows.append(
            f"| {name} | {len(body) / 1e6:.0f} | {len(answer['segments'])} "
            f"| {len(answer['timeline'])} | {length_s / cpu_s:.0f} | {length_s / wall_s:.0f} "
            f"| {idle:.0f} | {peak - idle:.0f} |"
        )
        outcomes.append(f"| {name} | {' | '.join(_outcomes(answer, truth, 'split' in query))} |")
    only = " --command-only" * options.command_only
    facts = provenance(f"benchmarks/long_audio.py --minutes {options.minutes:g}{only}")
    by_service = [] if options.command_only else [*_HEAD, *rows, ""]
    parts = [*_COMMAND_HEAD, *commands, "", _GOAL, "", *by_service, *_OUTCOMES, *outcomes]
    write("long_audio", "\n".join(parts), facts | machine_load())


def _by_command(body: bytes, *arguments: str) -> tuple[dict[str, Any], str]:
    """The answer of ``nnpm predict`` on one core, and a row about it."""
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        file.write(body)
        file.flush()
        found = scored(Path(file.name), 1, *arguments)
    (answer,) = found.answers
    spoken_s = sum(one["end_s"] - one["start_s"] for one in answer["segments"])
    return answer, (
        f"{len(answer['segments'])} | {spoken_s:.0f} | {found.audio_s / found.cpu_s:.0f} "
        f"| {found.audio_s / found.clock_s:.0f}"
    )


_BY_COMMAND = ("WAV, 8 kHz stereo, mixed", "the same, split")
_COMMAND_HEAD = [
    "| nnpm predict, one core, start included | turns | seconds in them | times real time (CPU) "
    "| (clock) |",
    "| --- | --- | --- | --- | --- |",
]
_GOAL = "Goal: 150 times real time. Split, an hour has two channels, and counts as one hour."
_HEAD = [
    "| a call, one core | MB | turns | timeline entries | times real time (CPU) | (clock) "
    "| MiB idle | MiB over idle at the peak |",
    "| --- | --- | --- | --- | --- | --- | --- | --- |",
]
_OUTCOMES = [
    "| turns that hold only | silence: no_speech | music: flagged | of these no_speech "
    "| out_of_domain | speech: no_speech | out_of_domain |",
    "| --- | --- | --- | --- | --- | --- | --- |",
]


def _cases(call: np.ndarray) -> Iterator[tuple[str, str, bytes]]:
    """Name, query and body, one after the other: not all of them in memory."""
    narrow = np.stack([soxr.resample(channel, 16_000, 8_000) for channel in call.T], axis=1)
    wav = _sound(narrow, 8_000, "WAV", "PCM_16")
    yield "WAV, 8 kHz stereo, mixed", "", wav
    yield "the same, split", "?channels=split", wav
    yield "FLAC, 16 kHz stereo, mixed", "", _sound(call, 16_000, "FLAC", "PCM_16")
    yield "MP3, 16 kHz mono", "", _sound(call.mean(axis=1), 16_000, "MP3", None)
    yield "M4A (AAC), 16 kHz stereo, mixed", "", _m4a(call)


def _sound(samples: np.ndarray, rate: int, container: str, subtype: str | None) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=container, subtype=subtype)
    return file.getvalue()


def _m4a(samples: np.ndarray) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="ipod") as container:
        stream = container.add_stream("aac", rate=16_000, layout="stereo")
        for begin in range(0, len(samples), 1_024):
            block = np.ascontiguousarray(samples[begin : begin + 1_024].T)
            frame = av.AudioFrame.from_ndarray(block, format="fltp", layout="stereo")
            frame.sample_rate, frame.pts = 16_000, begin
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()


def _post(address: str, body: bytes) -> dict[str, Any]:
    headers = {"Content-Type": "application/octet-stream"}
    request = urllib.request.Request(address, data=body, headers=headers)
    with urllib.request.urlopen(request, timeout=1800) as answer:
        found: dict[str, Any] = json.load(answer)
        return found


def _outcomes(answer: dict[str, Any], truth: list[Section], split: bool) -> list[str]:
    """Shares of the turns that hold one kind of sound alone."""
    reasons: dict[str, list[set[str]]] = {"silence": [], "music": [], "speech": []}
    for segment in answer["segments"]:
        channel = segment["channel"] if split else None
        sounds = holds(truth, segment["start_s"], segment["end_s"], channel)
        if not split and "speech" in sounds:
            sounds.discard("silence")  # one of the two is always silent
        if len(sounds) == 1:
            reasons[sounds.pop()].append(set(segment["reasons"]))
    silence, music, speech = reasons["silence"], reasons["music"], reasons["speech"]
    return [
        _share(["no_speech" in one for one in silence]),
        _share([bool(one & {"no_speech", "out_of_domain"}) for one in music]),
        _share(["no_speech" in one for one in music]),
        _share(["out_of_domain" in one for one in music]),
        _share(["no_speech" in one for one in speech]),
        _share(["out_of_domain" in one for one in speech]),
    ]


def _share(hits: list[bool]) -> str:
    return f"{np.mean(hits):.3f} of {len(hits)}" if hits else "none"


if __name__ == "__main__":
    main()
