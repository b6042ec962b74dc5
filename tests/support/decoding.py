"""Decoding without a process of its own, so that a test may change what the readers use."""

from typing import BinaryIO

import pytest

from nnpm.service.inference.audio import decode as decoding
from nnpm.service.inference.audio import decoder
from nnpm.service.inference.audio.formats import FORMATS
from nnpm.service.inference.audio.reader import DecodeBudget, Reader


def decode_in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the readers of libsndfile and FFmpeg run in this process, until the test ends."""

    def open_here(file: BinaryIO, row: int, track: int | None = None) -> Reader:
        return decoder.open_reader(file, FORMATS[row], DecodeBudget(), track)

    monkeypatch.setattr(decoder, "_allow", lambda _: None)
    monkeypatch.setattr(decoding, "RemoteReader", open_here)
