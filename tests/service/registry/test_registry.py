import multiprocessing
import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from nnpm.service.inference.errors import BundleError, ParameterError
from nnpm.service.inference.recognizer import Recognizer
from nnpm.service.registry import serving as serving_module
from nnpm.service.registry.registry import (
    Aliases,
    ModelInUseError,
    NothingToRollBackError,
    Registry,
    UnknownModelError,
)
from nnpm.service.registry.serving import LoadedModels, Serving, load_recognizer
from tests.support.tiny_bundle import write_tiny_bundle


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    write_tiny_bundle(tmp_path / "models/default/1")
    return Registry(tmp_path / "models")


@pytest.fixture
def urdu(tmp_path: Path) -> Path:
    write_tiny_bundle(tmp_path / "urdu", language="ur", parent="0" * 64)
    return tmp_path / "urdu"


def test_publishing_changes_no_answer_and_promoting_does(registry: Registry, urdu: Path) -> None:
    assert registry.publish(urdu, "default", key="job").version == "2"
    assert registry.live("default", "ur").version == registry.live("default").version == "1"
    assert registry.promote("default", "2") == {"ur": Aliases("2", None, None)}
    assert registry.live("default", "ur-PK").version == "2"
    assert registry.live("default", "de").version == registry.live("default").version == "1"


def test_a_key_publishes_once_and_numbers_are_never_given_again(
    registry: Registry, urdu: Path
) -> None:
    first = registry.publish(urdu, "default", key="a")
    assert registry.publish(urdu, "default", key="a") == first
    second = registry.publish(urdu, "default", key="b")
    registry.delete("default", second.version)
    assert registry.publish(urdu, "default", key="c").version == "4"
    assert registry.versions("default") == ["1", "2", "4"]


def test_roll_back_takes_promotions_back_one_by_one(registry: Registry, urdu: Path) -> None:
    for key in "ab":
        registry.publish(urdu, "default", key=key)
    registry.promote("default", "2")
    assert registry.promote("default", "3")["ur"] == Aliases("3", "2", None)
    assert registry.rollback("default")["ur"] == Aliases("2", None, None)
    assert registry.rollback("default", "urd") == {}
    assert registry.live("default", "ur").version == "1"
    with pytest.raises(NothingToRollBackError, match="No version of 'default' has been promoted"):
        registry.rollback("default")


def test_what_an_alias_holds_is_not_deleted(registry: Registry, urdu: Path) -> None:
    for key in "abc":
        registry.publish(urdu, "default", key=key)
    registry.promote("default", "2")
    registry.promote("default", "3")
    registry.shadow("default", "4")
    for version, holder in {"1": "default", "2": "previous", "3": "live", "4": "shadow"}.items():
        with pytest.raises(ModelInUseError, match=holder):
            registry.delete("default", version)
    registry.shadow("default", None, "ur")
    registry.delete("default", "4")
    assert registry.versions("default") == ["1", "2", "3"]


@pytest.mark.parametrize("name", ["", "..", "../x", "a/b", ".hidden", "x" * 65, "ä"])
def test_a_name_cannot_lead_elsewhere(registry: Registry, urdu: Path, name: str) -> None:
    with pytest.raises(ParameterError):
        registry.publish(urdu, name, key="a")
    with pytest.raises(UnknownModelError):
        registry.promote(name, "1", "ur")


def test_a_damaged_bundle_is_not_published(registry: Registry, urdu: Path) -> None:
    (urdu / "model.onnx").write_bytes(b"")
    with pytest.raises(BundleError, match="damaged"):
        registry.publish(urdu, "default", key="a")
    assert registry.versions("default") == ["1"]


def _publish(root: Path, source: Path, key: str) -> None:
    Registry(root).publish(source, "default", key=key)


def _publish_and_die(root: Path, source: Path) -> None:
    Path.rename = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment]
    _publish(root, source, "dies")


def test_processes_publish_at_once_and_nothing_is_lost(registry: Registry, urdu: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=_publish, args=(registry.root, urdu, str(n))) for n in range(4)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [p.exitcode for p in processes] == [0] * 4
    assert registry.versions("default") == ["1", "2", "3", "4", "5"]


def test_a_publication_that_dies_leaves_nothing_and_can_be_repeated(
    registry: Registry, urdu: Path
) -> None:
    process = multiprocessing.get_context("spawn").Process(
        target=_publish_and_die, args=(registry.root, urdu)
    )
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert registry.versions("default") == ["1"]
    assert registry.publish(urdu, "default", key="dies").version == "2"
    assert not list((registry.root / "default").glob(".publishing*"))


def test_another_process_change_is_seen_within_two_seconds(registry: Registry, urdu: Path) -> None:
    serving = Serving(registry, LoadedModels(load_recognizer, 2))
    registry.publish(urdu, "default", key="a")
    assert serving.choose(language="ur").model.version == "1"
    serving.start()
    try:
        Registry(registry.root).promote("default", "2")
        deadline = time.monotonic() + 5  # two seconds, but for a machine that is busy
        while serving.choose(language="ur").model.version != "2":
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        serving.stop()
    assert serving.choose(language="ur").language == "ur"


def test_a_version_that_fails_its_probe_is_never_switched_to(
    registry: Registry, urdu: Path
) -> None:
    serving = Serving(registry, LoadedModels(load_recognizer, 2))
    serving.choose()
    registry.publish(urdu, "default", key="a")
    (registry.root / "default/2/probe.npz").write_bytes(b"spoilt")
    with pytest.raises(BundleError):
        serving.promote("default", "2")
    assert registry.aliases("default") == {}
    registry.promote("default", "2", "ur")  # as another program might
    serving.refresh()
    assert serving.choose(language="ur").model.version == "1"
    shutil.rmtree(registry.root / "default/2")


def test_a_roll_back_needs_no_loading(registry: Registry, urdu: Path) -> None:
    calls: list[Path] = []
    load = LoadedModels(lambda path: (calls.append(path), load_recognizer(path))[1], 1)
    serving = Serving(registry, load)
    for key in "ab":
        registry.publish(urdu, "default", key=key)
    serving.promote("default", "2")
    serving.promote("default", "3")
    before = len(calls)
    serving.rollback("default")
    assert serving.choose(language="ur").model.version == "2"
    assert len(calls) == before


def test_many_languages_are_loaded_when_they_are_asked_for(
    registry: Registry, urdu: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving_module, "EAGER_ROUTES", 2)
    loads: list[str] = []

    def load(path: Path) -> Recognizer:
        loads.append(path.name)
        return load_recognizer(path)

    for number, language in enumerate(("ur", "bn", "pl"), 2):
        registry.publish(urdu, "default", key=language)
        registry.promote("default", str(number), language)
    serving = Serving(registry, LoadedModels(load, 1))
    assert serving.choose().model.version == "1"
    assert loads == ["1"]
    for language, version in (("ur", "2"), ("bn", "3"), ("bn", "3"), ("ur", "2"), ("de", "1")):
        assert serving.choose(language=language).model.version == version
    assert loads == ["1", "2", "3", "2"]  # one besides und's is kept

    (registry.root / "default/4/bundle.sha256").write_text("damaged")
    assert serving.choose(language="pl").model.version == "1"
    assert "default/4 cannot be loaded" in serving.warnings()[0]
    registry.promote("default", "2", "pl")
    serving.refresh()
    assert serving.choose(language="pl").model.version == "2"
    assert serving.warnings() == []
