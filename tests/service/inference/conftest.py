import pytest

from tests.support.decoding import decode_in_process


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    decode_in_process(monkeypatch)
