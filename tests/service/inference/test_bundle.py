import errno
import io
import json
import os
import zipfile
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save as save_arrays

from nnpm.service.inference import bundle as bundles
from nnpm.service.inference.bundle import CARD, FILES, SEAL
from nnpm.service.inference.card import Card
from nnpm.service.inference.errors import BundleError, OldBaseError
from nnpm.service.inference.head import Head
from tests.support.tiny_bundle import (
    LABELS,
    WIDTH,
    first_memory,
    tiny_card,
    tiny_files,
    tiny_head,
    tiny_memory,
    write_card,
    write_first_bundle,
    write_signed,
    write_tiny_bundle,
)

NAMES = FILES[2]
WRITE = {1: write_first_bundle, 2: write_tiny_bundle}
OF_BOTH = [(schema, name) for schema, names in FILES.items() for name in names]

DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "a flipped byte": lambda data: data[:20] + bytes([data[20] ^ 0x10]) + data[21:],
    "a flipped bit at the end": lambda data: data[:-1] + bytes([data[-1] ^ 1]),
    "truncated": lambda data: data[: len(data) // 2],
    "emptied": lambda data: b"",
    "longer": lambda data: data + b"\0",
}


def refusal(call: Callable[[], object]) -> str:
    """The one sentence of a refusal."""
    with pytest.raises(BundleError) as caught:
        call()
    sentence = str(caught.value)
    assert sentence.endswith(".")
    assert "\n" not in sentence
    return sentence


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_tiny_bundle(tmp_path / "bundle").path


@pytest.mark.smoke
@pytest.mark.parametrize("schema", FILES)
def test_what_is_saved_is_loaded(tmp_path: Path, schema: int) -> None:
    saved = WRITE[schema](tmp_path / "deep" / "down" / "1")
    loaded = bundles.load(saved.path)
    assert loaded.card == saved.card
    assert loaded.card.schema_version == schema
    assert loaded.labels == LABELS
    assert set(loaded.card.files) == set(FILES[schema])
    assert {file.name for file in saved.path.iterdir()} == {*FILES[schema], CARD, SEAL}
    assert list(saved.path.parent.iterdir()) == [saved.path]


@pytest.mark.smoke
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize(("schema", "name"), OF_BOTH)
def test_a_damaged_file_is_named(tmp_path: Path, schema: int, name: str, damage: str) -> None:
    path = WRITE[schema](tmp_path / "bundle").path
    file = path / name
    file.write_bytes(DAMAGES[damage](file.read_bytes()))
    assert f"{name} is damaged" in refusal(lambda: bundles.load(path))


@pytest.mark.parametrize("name", [*NAMES, CARD, SEAL])
def test_a_missing_file_is_named(path: Path, name: str) -> None:
    (path / name).unlink()
    assert name in refusal(lambda: bundles.load(path))


@pytest.mark.parametrize("damage", ["truncated", "emptied", "longer"])
def test_a_damaged_card_is_named(path: Path, damage: str) -> None:
    file = path / CARD
    file.write_bytes(DAMAGES[damage](file.read_bytes()))
    assert CARD in refusal(lambda: bundles.load(path))


@pytest.mark.parametrize("text", ["[]", "null", '"card"', "[" * 100_000, '{"a": 1}', "\xff\xfe"])
def test_a_foreign_card_is_refused(path: Path, text: str) -> None:
    (path / CARD).write_bytes(text.encode("latin-1"))
    assert "is not a card of schema 1 or 2" in refusal(lambda: bundles.load(path))


def test_what_is_no_bundle_is_refused(tmp_path: Path) -> None:
    assert "is not a bundle" in refusal(lambda: bundles.load(tmp_path))
    assert "is not a bundle" in refusal(lambda: bundles.load(tmp_path / "nowhere"))
    file = tmp_path / "file"
    file.touch()
    assert "cannot be read: Not a directory" in refusal(lambda: bundles.load(file))


@pytest.mark.parametrize("name", [*NAMES, CARD, SEAL])
def test_a_folder_in_place_of_a_file_is_refused(path: Path, name: str) -> None:
    (path / name).unlink()
    (path / name).mkdir()
    assert f"{name} cannot be read: Is a directory" in refusal(lambda: bundles.load(path))


def test_links_are_followed_and_checked_like_files(path: Path, tmp_path: Path) -> None:
    graph = path / "model.onnx"
    elsewhere = graph.rename(tmp_path / "elsewhere.onnx")
    graph.symlink_to(elsewhere)
    assert bundles.load(path).labels == LABELS
    elsewhere.write_bytes(b"something else")
    assert "model.onnx is damaged" in refusal(lambda: bundles.load(path))
    elsewhere.unlink()
    assert "model.onnx cannot be read" in refusal(lambda: bundles.load(path))


CARD_VALUES: list[tuple[str, Any, str]] = [
    ("format", "other", "format"),
    ("schema_version", 3, "schema_version"),
    ("schema_version", 1, "has no digest of head.onnx"),
    ("emotions", ["sad", "bored"], "bored"),
    ("emotions", ["sad", "sad"], "twice"),
    ("labels", ["angry"], "labels"),
    ("labels", ["angry", "angry", "sad", "calm"], "twice"),
    ("labels", "angry", "labels"),
    ("sample_rate_hz", 8_000, "sample_rate_hz"),
    ("window_s", 0.4, "window_s"),
    ("window_s", 1e9, "window_s"),
    ("window_s", float("nan"), "window_s"),
    ("hop_s", 0, "hop_s"),
    ("files", {}, "has no digest of model.onnx"),
    ("licence", None, "licence"),
    ("surprise" * 1_000, 1, "surprise"),
]
DECISION_VALUES: list[tuple[str, Any]] = [
    ("temperature", 0.0),
    ("temperature", 1e-300),  # 0 as float32
    ("temperature", 1e300),
    ("temperature", float("inf")),
    ("vote_temperature", -1.0),
    ("vote_temperature", float("nan")),
    ("vote_weight", 1.1),
    ("vote_slots", 0),
    ("domain_slots", 0),
    ("domain_slots", 1.5),
    ("domain_midpoint", float("nan")),
    ("domain_midpoint", float("-inf")),
    ("domain_slope", 0.0),
    ("domain_slope", float("inf")),
    ("low_confidence", 2),
    ("out_of_domain", -0.1),
    ("logit_bias", [0.1, 0.2, 0.3]),  # the bundle knows four emotions
    ("vote_bias", [0.0] * 5),
    ("vote_bias", [0.0, 0.0, 0.0, float("nan")]),
    ("logit_bias", [1e39, 0.0, 0.0, 0.0]),
]


@pytest.mark.parametrize(("key", "value", "said"), CARD_VALUES)
def test_a_card_with_a_bad_value_is_refused(path: Path, key: str, value: Any, said: str) -> None:
    card = json.loads((path / CARD).read_text())
    write_card(path, card | {key: value})
    sentence = refusal(lambda: bundles.load(path))
    assert said in sentence
    assert len(sentence) < 500


@pytest.mark.parametrize(("key", "value"), DECISION_VALUES)
def test_a_decision_with_a_bad_value_is_refused(path: Path, key: str, value: Any) -> None:
    card = json.loads((path / CARD).read_text())
    card["decision"][key] = value
    write_card(path, card)
    assert f"decision.{key}" in refusal(lambda: bundles.load(path))


def test_a_card_from_before_there_were_biases_has_none(path: Path) -> None:
    card = json.loads((path / CARD).read_text())
    del card["decision"]["logit_bias"], card["decision"]["vote_bias"]
    write_card(path, card)
    decision = bundles.load(path).card.decision
    assert decision.logit_bias == decision.vote_bias == ()


def test_nothing_is_overwritten(path: Path) -> None:
    before = {file.name: file.read_bytes() for file in path.iterdir()}
    assert "not overwritten" in refusal(lambda: write_tiny_bundle(path, calibrated=False))
    assert {file.name: file.read_bytes() for file in path.iterdir()} == before
    file = path.with_name("file")
    file.write_text("mine")
    assert "exists" in refusal(lambda: write_tiny_bundle(file))
    assert file.read_text() == "mine"


@pytest.mark.parametrize("succeeding", range(len(NAMES) + 2))
def test_a_disk_that_fills_up_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, succeeding: int
) -> None:
    calls = 0

    def fsync(_: int) -> None:
        nonlocal calls
        calls += 1
        if calls > succeeding:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    sentence = refusal(lambda: write_tiny_bundle(tmp_path / "bundle"))
    assert sentence == f"{tmp_path / 'bundle'} cannot be written: No space left on device."
    assert list(tmp_path.iterdir()) == []


def test_an_interruption_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_tiny_bundle(tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    place = tmp_path / "file" / "bundle"
    assert f"{place} cannot be written" in refusal(lambda: write_tiny_bundle(place))


def test_only_what_the_card_vouches_for_is_written(tmp_path: Path) -> None:
    files = {**tiny_files(), "more.txt": b"more"}
    saved = bundles.save(tmp_path / "bundle", tiny_card(), files)
    assert {file.name for file in saved.path.iterdir()} == {*NAMES, CARD, SEAL}


def test_the_memory_is_what_was_stored(path: Path) -> None:
    memory, expected = bundles.load(path).memory(), tiny_memory()
    np.testing.assert_array_equal(memory.features, expected.features)
    assert memory.features.dtype == np.float32
    assert np.abs(memory.features * 32 - np.round(memory.features * 32)).max() == 0
    assert memory.emotion.tolist() == expected.emotion.tolist()
    for field in ("corpus", "language", "speaker"):
        assert getattr(memory, field) == getattr(expected, field)


def test_the_first_generations_memory_is_what_was_stored(tmp_path: Path) -> None:
    memory = write_first_bundle(tmp_path / "bundle").memory()
    features, emotion = first_memory()
    np.testing.assert_array_equal(memory.features, features.astype(np.float32))
    assert memory.emotion.tolist() == emotion.tolist()
    assert memory.corpus == ("one", "two") * (len(emotion) // 2)
    assert memory.language == ("en", "pl") * (len(emotion) // 2)
    assert memory.speaker == ()


def memory_file(metadata: dict[str, str] | None = None, **changes: np.ndarray | None) -> bytes:
    """Four slots, with some parts replaced, or left out where they are None."""
    arrays = {
        "features": np.eye(4, WIDTH, dtype=np.int8),
        "emotion": np.arange(4, dtype=np.uint8),
        "corpus": np.zeros(4, np.uint16),
        "language": np.zeros(4, np.uint16),
        "speaker": np.zeros(4, np.uint16),
    } | changes
    names = {"corpora": '["one"]', "languages": '["en"]', "speakers": '["Ada"]'}
    kept = {name: array for name, array in arrays.items() if array is not None}
    return save_arrays(kept, metadata=names if metadata is None else metadata)


def tensors(head: Head) -> dict[str, np.ndarray]:
    return {name: np.asarray(value) for name, value in asdict(head).items()}


KINDS = ("corpora", "languages", "speakers")
BAD_MEMORIES: dict[str, tuple[bytes, str]] = {
    "not safetensors": (b"PK\x03\x04 something else", "cannot be read"),
    "empty file": (b"", "cannot be read"),
    "a header of 2^63 bytes": (b"\xff" * 7 + b"\x7f{}", "cannot be read"),
    "no features": (memory_file(features=None), "cannot be read"),
    "no emotions": (memory_file(emotion=None), "cannot be read"),
    "no languages": (memory_file(language=None), "cannot be read"),
    "no speakers": (memory_file(speaker=None), "cannot be read"),
    "no names": (memory_file({"format": "np"}), "cannot be read"),
    "names that are no JSON": (memory_file(dict.fromkeys(KINDS, "x")), "cannot be read"),
    "a number for names": (memory_file(dict.fromkeys(KINDS, "7")), "cannot be read"),
    "numbers for names": (memory_file(dict.fromkeys(KINDS, "[7]")), "cannot be read"),
    "a name that is missing": (memory_file(corpus=np.ones(4, np.uint16)), "cannot be read"),
    "a name before the first": (memory_file(corpus=-np.ones(4, np.int8)), "cannot be read"),
    "half a name": (memory_file(corpus=np.full(4, 0.5, np.float32)), "cannot be read"),
    "names in a square": (memory_file(corpus=np.zeros((4, 4), np.uint16)), "cannot be read"),
    "one name": (memory_file(corpus=np.array(0, np.uint16)), "cannot be read"),
    "nothing": (
        memory_file(
            features=np.zeros((0, WIDTH), np.int8),
            emotion=np.zeros(0, np.uint8),
            corpus=np.zeros(0, np.uint16),
            language=np.zeros(0, np.uint16),
            speaker=np.zeros(0, np.uint16),
        ),
        "holds (0, 8) features",
    ),
    "no width": (memory_file(features=np.zeros((4, 0), np.int8)), "holds (4, 0) features"),
    "flat features": (memory_file(features=np.zeros(4, np.int8)), "holds (4,) features"),
    "a single feature": (memory_file(features=np.array(1, np.int8)), "holds () features"),
    "fewer emotions": (memory_file(emotion=np.zeros(3, np.uint8)), "3 emotions"),
    "emotions in a square": (memory_file(emotion=np.zeros((2, 2), np.uint8)), "4 emotions"),
    "fewer corpora": (memory_file(corpus=np.zeros(3, np.uint16)), "3 corpora"),
    "more languages": (memory_file(language=np.zeros(5, np.uint16)), "5 languages"),
    "an emotion too many": (memory_file(emotion=np.array([0, 1, 2, 4], np.uint8)), "0 to 4"),
    "an emotion too few": (memory_file(emotion=np.array([-1, 0, 1, 2], np.int8)), "-1 to 2"),
    "more speakers": (memory_file(speaker=np.zeros(5, np.uint16)), "5 speakers"),
    "features of the first generation": (
        memory_file(features=np.zeros((4, WIDTH), np.float16)),
        "must be int8",
    ),
}


@pytest.mark.parametrize("name", BAD_MEMORIES)
def test_a_memory_that_does_not_hold_together_is_refused(path: Path, name: str) -> None:
    data, said = BAD_MEMORIES[name]
    write_signed(path, "memory.safetensors", data)
    assert said in refusal(bundles.load(path).memory)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_first_memory_that_is_not_finite_is_refused(tmp_path: Path, value: float) -> None:
    path = write_first_bundle(tmp_path / "bundle").path
    data = memory_file(features=np.full((4, WIDTH), value, np.float16))
    write_signed(path, "memory.safetensors", data)
    assert "not finite" in refusal(bundles.load(path).memory)


HEADS: dict[str, tuple[bytes, str]] = {
    "no safetensors": (b"PK", "head.safetensors cannot be read"),
    "something else": (save_arrays({"x": np.zeros(3, np.float32)}), "cannot be read"),
    "other shapes": (
        save_arrays(tensors(tiny_head()) | {"bias": np.zeros(9, np.float32)}), "of shape (9,)"
    ),
    "fewer classes": (
        replace(tiny_head(), classes=tiny_head().classes[:3]).to_bytes(), "3 classes"
    ),
    "not a number": (
        replace(tiny_head(), scale=np.float32(np.nan)).to_bytes(), "scale that is not finite"
    ),
    "no deviation": (
        replace(tiny_head(), deviation=np.zeros(WIDTH, np.float32)).to_bytes(), "not above 0"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HEADS)
def test_a_head_that_does_not_hold_together_is_refused(path: Path, name: str) -> None:
    data, said = HEADS[name]
    write_signed(path, "head.safetensors", data)
    assert said in (sentence := refusal(bundles.load(path).head))
    assert str(path) in sentence


def test_the_first_generation_has_no_head(tmp_path: Path) -> None:
    with pytest.raises(OldBaseError, match=r"cannot be adapted; take default/2 as the base\.$"):
        write_first_bundle(tmp_path / "bundle").head()


def test_the_smallest_memory_will_do(path: Path) -> None:
    write_signed(path, "memory.safetensors", memory_file())
    assert bundles.load(path).memory().corpus == ("one",) * 4


def test_a_card_names_the_answers() -> None:
    assert tiny_card().answers == LABELS
    assert tiny_card(emotions=("sad", "angry")).answers == ("angry", "sad")


def archive(**arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def single_array() -> bytes:
    file = io.BytesIO()
    np.save(file, np.zeros(3))
    return file.getvalue()


def zipped(method: int) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as parts:
        parts.writestr("waveform.npy", b"\x93NUMPY\x01\x00 no header")
    return file.getvalue()


BAD_PROBES = {
    "empty": b"",
    "text": b"no archive",
    "a broken archive": b"PK\x03\x04" + bytes(40),
    "a broken member": zipped(zipfile.ZIP_DEFLATED),
    "pickle": archive(waveform=np.array([{}], dtype=object)),
    "a single array": single_array(),
    "an answer is missing": archive(waveform=np.zeros((1, 512)), lengths=np.full(1, 512.0)),
}


@pytest.mark.parametrize("name", BAD_PROBES)
def test_a_probe_that_cannot_be_read_is_refused(path: Path, name: str) -> None:
    write_signed(path, "probe.npz", BAD_PROBES[name])
    assert "probe.npz cannot be read" in refusal(bundles.load(path).probe)


def test_cards_cannot_be_changed() -> None:
    card = tiny_card()
    with pytest.raises(ValueError, match="frozen"):
        card.licence = "other"  # type: ignore[misc]
    assert isinstance(card, Card)


def test_a_card_changed_by_hand_is_refused(path: Path) -> None:
    text = (path / CARD).read_text()
    (path / CARD).write_text(text.replace('"temperature": 1.5', '"temperature": 9.5'))
    assert "bundle.json is damaged" in refusal(lambda: bundles.load(path))
