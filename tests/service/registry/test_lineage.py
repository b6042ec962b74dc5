"""Which versions a newer base has overtaken, and what an adaptation starts from."""

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from nnpm.service.inference.bundle import CARD
from nnpm.service.inference.errors import OldBaseError
from nnpm.service.registry.registry import Registry, UnknownModelError
from tests.support.tiny_bundle import write_first_bundle, write_tiny_bundle


def digest(path: Path) -> str:
    return hashlib.sha256((path / CARD).read_bytes()).hexdigest()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "own/default"


@pytest.fixture
def registry(home: Path) -> Registry:
    """Base 1 and its Urdu, both of the first generation; base 3 of the second."""
    write_first_bundle(home / "1")
    write_first_bundle(home / "2", language="ur", parent=digest(home / "1"))
    write_tiny_bundle(home / "3")
    found = Registry(home.parent)
    found.promote("default", "2")
    return found


def test_what_descends_from_an_older_base_is_named_with_the_command(registry: Registry) -> None:
    (language, told), *rest = registry.outdated("default").items()
    assert (language, rest) == ("ur", [])
    assert told == (
        "default/2 answers for ur and was adapted from an older base than default/3; adapt again: "
        "nnpm adapt --bundle $NNPM_MODELS/default/3 --target DIR --language ur --out BUNDLE, or "
        "POST /adapt with language=ur."
    )
    assert registry.live("default", "ur").version == "2"


def test_where_the_default_is_the_older_base_nothing_is_outdated(registry: Registry) -> None:
    registry.promote("default", "1", "und")
    assert registry.outdated("default") == {}


def test_descent_is_followed_through_the_versions(registry: Registry, home: Path) -> None:
    write_tiny_bundle(home / "4", language="de", parent=digest(home / "3"))
    write_tiny_bundle(home / "5", language="de", parent=digest(home / "4"))
    write_tiny_bundle(home / "6", language="pl", parent="0" * 64)  # of a base that was deleted
    for version in ("5", "6"):
        registry.promote("default", version)
    assert set(registry.outdated("default")) == {"ur", "pl"}
    # another base of the second generation answers now
    write_tiny_bundle(home / "7", metrics={"release": 3})
    assert set(registry.outdated("default")) == {"ur", "pl", "de"}


def test_a_recalibrated_default_is_no_newer_base(registry: Registry, home: Path) -> None:
    third = digest(home / "3")
    write_tiny_bundle(home / "4", language="de", parent=third)
    write_tiny_bundle(home / "5", parent=third, metrics={"recalibrated": True})
    registry.promote("default", "4")
    registry.promote("default", "5", "und")
    assert set(registry.outdated("default")) == {"ur"}


def test_a_card_that_cannot_be_read_is_left_to_who_loads_it(registry: Registry, home: Path) -> None:
    (home / "2" / CARD).write_text("[]")
    assert registry.outdated("default") == {}
    assert registry.base("default", "ur").version == "2"
    (home / "3" / CARD).write_text("no JSON")
    assert registry.outdated("default") == {}


def test_an_adaptation_starts_from_what_can_be_adapted(registry: Registry, home: Path) -> None:
    assert registry.base("default").version == "3"
    assert registry.base("default", "ur").version == "3"
    assert registry.base("default", "ur", "3").version == "3"
    german = write_tiny_bundle(home / "4", language="de", parent=digest(home / "3"))
    registry.promote("default", "4")
    assert registry.base("default", "de").path == german.path
    registry.promote("default", "1", "und")  # put back: only the newer one can be adapted
    assert registry.base("default").version == "3"
    assert registry.base("default", "ur").version == "3"
    for version in ("1", "2"):
        with pytest.raises(OldBaseError) as caught:
            registry.base("default", "ur", version)
        assert str(caught.value) == (
            f"default/{version} is of the first generation, which answers but cannot be adapted; "
            "take default/3 as the base."
        )
    with pytest.raises(UnknownModelError, match="no version '9'"):
        registry.base("default", "ur", "9")


def test_without_a_newer_base_the_release_s_own_is_named(tmp_path: Path) -> None:
    write_first_bundle(tmp_path / "default/1")
    with pytest.raises(OldBaseError, match=r"take default/2 as the base\.$"):
        Registry(tmp_path).base("default", "ur")


def test_it_is_told_where_it_is_looked_for(
    registry: Registry, serve: Callable[..., TestClient], caplog: pytest.LogCaptureFixture
) -> None:
    (told,) = registry.outdated("default").values()
    with caplog.at_level(logging.WARNING, "nnpm"):
        client = serve(models=registry.root, adapt_workers=0)
    assert told in [record.getMessage() for record in caplog.records]
    assert client.get("/models").json()["models"][0]["warnings"] == [told]
    assert client.get("/models/default").json()["warnings"] == [told]
    ready = client.get("/health/ready").json()
    assert (ready["status"], ready.get("warnings", [])) == ("ready", [])
