import logging
from pathlib import Path

import pytest

from nnpm.service.keys import LOOK_S, ApiKeys, KeyFile, KeysError


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def test_it_follows_the_file_and_looks_once_a_second(path: Path) -> None:
    file, clock = KeyFile(path), Clock()
    old, _ = file.create("web", frozenset({"predict"}))
    ring = ApiKeys(path, clock)
    found = ring.find(old)
    assert found is not None
    assert found.name == "web"

    file.revoke("web")
    new, _ = file.create("phone", frozenset({"admin"}))
    clock.now_s += LOOK_S / 2
    assert ring.find(new) is None  # not looked yet
    clock.now_s += LOOK_S
    assert ring.find(new) is not None
    assert ring.find(old) is None


def test_a_file_that_breaks_leaves_the_last_good_keys(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file, clock = KeyFile(path), Clock()
    text, _ = file.create("web", frozenset({"predict"}))
    good = path.read_text()
    ring = ApiKeys(path, clock)
    with caplog.at_level(logging.ERROR, "nnpm"):
        for broken in ("{", None):
            path.unlink() if broken is None else path.write_text(broken)
            for _ in range(3):
                clock.now_s += 2 * LOOK_S
                assert ring.find(text) is not None
    assert len(caplog.records) == 2  # once for each way to be broken, not once a second
    assert "damaged" in caplog.text
    assert "cannot be read" in caplog.text
    assert text not in caplog.text

    path.write_text(good)
    file.revoke("web")
    clock.now_s += 2 * LOOK_S
    assert ring.find(text) is None


@pytest.mark.parametrize("content", [None, "", "{"])
def test_it_does_not_begin_with_a_broken_file(path: Path, content: str | None) -> None:
    if content is not None:
        path.write_text(content)
    with pytest.raises(KeysError):
        ApiKeys(path)


def test_a_file_without_an_active_key_is_warned_of(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    KeyFile(path).create("web", frozenset())
    KeyFile(path).revoke("web")
    with caplog.at_level(logging.WARNING, "nnpm"):
        ApiKeys(path)
    assert "no active key" in caplog.text
