"""Forms that hold too much of what is no audio: refused early, and kept nowhere."""

import resource
from collections.abc import Callable

import pytest
from fastapi.testclient import TestClient

from tests.support.problems import problem
from tests.support.sounds import encode, speechlike

END = b"\r\n--x--\r\n"
WAV = encode(speechlike())


def part(headers: bytes, body: bytes) -> bytes:
    return b"--x\r\n" + headers + b"\r\n\r\n" + body + b"\r\n"


def named(name: str, more: bytes = b"") -> bytes:
    return f'Content-Disposition: form-data; name="{name}"'.encode() + more


FILE = b'; filename="a.wav"'
HUGE = {
    "one field": part(named("language"), b"x" * (8 << 20)),
    "many fields": b"".join(part(named(f"field{n}"), b"x") for n in range(10_000)),
    "many large fields": b"".join(part(named(f"f{n}"), b"x" * 1_000_000) for n in range(40)),
    "one header": part(named("file", FILE) + b"\r\nx: " + b"y" * (8 << 20), WAV),
    "one header name": part(named("file", FILE) + b"\r\n" + b"y" * (8 << 20) + b": x", WAV),
    "many headers": part(named("file", FILE) + b"\r\nx: y" * 100_000, WAV),
    "a part's name": part(named("n" * (8 << 20)), b"x"),
    "a file's name": part(named("file", b'; filename="' + b"n" * (8 << 20) + b'"'), WAV),
    "many files": b"".join(part(named("file", FILE), b"x") for _ in range(2000)),
}


@pytest.mark.parametrize("path", ["/predict", "/adapt"])
@pytest.mark.parametrize("kind", HUGE)
def test_huge_forms_are_problems_in_little_memory(
    start: Callable[..., TestClient], path: str, kind: str
) -> None:
    client = start(adapt_workers=0)
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    answer = client.post(
        path,
        content=HUGE[kind] + part(named("file", FILE), WAV) + END,
        headers={"Content-Type": "multipart/form-data; boundary=x"},
    )
    problem(answer, 422, "bad_form")
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib
    assert grown_kib < 100 * 1024  # the request itself, twice: client and service are one process


@pytest.mark.parametrize("path", ["/predict", "/adapt"])
def test_a_boundary_has_a_bound(start: Callable[..., TestClient], path: str) -> None:
    client = start()
    for boundary in ("b" * 10_000, ""):
        headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
        problem(client.post(path, content=b"--x", headers=headers), 422, "bad_form")
