import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from nnpm.service.keys import KeyFile, KeysError, find_key, read_keys


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def test_keys_are_kept_for_their_owner_alone(path: Path) -> None:
    file = KeyFile(path)
    assert file.read() == []
    text, key = file.create("web", frozenset({"predict", "adapt"}))
    file.create("phone", frozenset())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert text not in path.read_text()
    found = {key.id: key for key in read_keys(path)}
    assert find_key(found, text) == key
    assert [key.name for key in file.read()] == ["web", "phone"]
    assert list(path.parent.iterdir()) == [path]


def test_the_mode_that_an_operator_gave_it_stays(path: Path) -> None:
    file = KeyFile(path)
    file.create("web", frozenset())
    path.chmod(0o640)
    file.create("phone", frozenset())
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_name_has_one_key_unless_it_is_rotated(path: Path) -> None:
    file = KeyFile(path)
    _, old = file.create("web", frozenset({"predict"}))
    with pytest.raises(KeysError, match=old.id):
        file.create("web", frozenset({"admin"}))
    with pytest.raises(KeysError, match="no key"):
        file.create("phone", None, rotate=True)
    _, new = file.create("web", None, rotate=True)
    assert new.scopes == old.scopes
    with pytest.raises(KeysError, match=f"{old.id}, {new.id}"):
        file.revoke("web")
    assert file.revoke(old.id).revoked_at is not None
    assert file.revoke("web").id == new.id
    with pytest.raises(KeysError, match="no active key"):
        file.revoke("web")
    _, third = file.create("web", frozenset())
    assert [key.active for key in file.read()] == [False, False, True]
    assert third.scopes == frozenset()


DAMAGED = {
    "empty": "",
    "cut off": '{"version": 1, "keys": [{"id": "',
    "another document": "[]",
    "another version": '{"version": 2, "keys": []}',
    "no keys": '{"version": 1}',
    "more than we know": '{"version": 1, "keys": [], "x": 1}',
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_file_is_one_sentence_and_stays_as_it_is(path: Path, kind: str) -> None:
    path.write_text(DAMAGED[kind])
    for use in (lambda: read_keys(path), lambda: KeyFile(path).create("web", frozenset())):
        with pytest.raises(KeysError, match="damaged") as caught:
            use()
        assert "\n" not in str(caught.value)
    assert path.read_text() == DAMAGED[kind]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("scopes", ["everything"]),
        ("sha256", "abc"),
        ("id", "../../x"),
        ("created_at", "yesterday"),
        ("name", ""),
    ],
)
def test_a_damaged_key_damages_the_file(path: Path, field: str, value: object) -> None:
    KeyFile(path).create("web", frozenset({"predict"}))
    content = json.loads(path.read_text())
    content["keys"][0][field] = value
    path.write_text(json.dumps(content))
    with pytest.raises(KeysError, match=field):
        read_keys(path)


def test_two_keys_of_one_id_are_damage(path: Path) -> None:
    KeyFile(path).create("web", frozenset())
    content = json.loads(path.read_text())
    content["keys"] *= 2
    path.write_text(json.dumps(content))
    with pytest.raises(KeysError, match="one id"):
        read_keys(path)


def test_a_file_that_is_not_there_or_a_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing", tmp_path):
        with pytest.raises(KeysError, match="cannot be read"):
            read_keys(path)
    with pytest.raises(KeysError, match="cannot be written"):
        KeyFile(tmp_path / "no/folder").create("web", frozenset())


def test_a_write_that_fails_leaves_the_old_file(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    KeyFile(path).create("web", frozenset())
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(KeysError, match="No space left"):
        KeyFile(path).create("phone", frozenset())
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_processes_that_make_keys_wait_for_each_other(path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from nnpm.service.keys import KeyFile\n"
        "for n in range(10): KeyFile(Path(sys.argv[1])).create(f'{sys.argv[2]}{n}', frozenset())"
    )
    children = [subprocess.Popen([sys.executable, "-c", code, str(path), name]) for name in "abc"]
    assert [child.wait(60) for child in children] == [0, 0, 0]
    assert sorted(key.name for key in read_keys(path)) == sorted(
        f"{name}{n}" for name in "abc" for n in range(10)
    )
