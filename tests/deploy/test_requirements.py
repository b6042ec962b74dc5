"""The locks say what pyproject.toml asks for: they cannot go stale in silence."""

import importlib.metadata
import re
import tomllib
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
PYTHONS = ("3.11", "3.12", "3.13")
MAKEFILE = (ROOT / "Makefile").read_text("utf-8")
KINDS = ("service", "service-media", "train")
EXTRAS = {
    kind: re.findall(r"--extra (\S+)", line)
    for kind in KINDS
    for line in re.findall(rf"^\t.*-o requirements/{kind}\.txt$", MAKEFILE, re.MULTILINE)
}


def asked(extras: list[str]) -> list[Requirement]:
    project = PROJECT["project"]
    waiting, found = [f"nnpm[{','.join(extras)}]"], [*project["dependencies"]]
    while waiting:  # an extra may name another
        for extra in Requirement(waiting.pop()).extras:
            for line in project["optional-dependencies"][extra]:
                (waiting if line.startswith("nnpm[") else found).append(line)
    return [Requirement(line) for line in found]


def locked(kind: str, python: str) -> dict[str, str]:
    """Version by name, as pip would install on Linux."""
    lines = (ROOT / f"requirements/{kind}.txt").read_text().splitlines()
    environment = {**default_environment(), "python_version": python}
    environment |= {"python_full_version": f"{python}.0", "sys_platform": "linux"}
    found = {}
    for line in lines:
        if re.match(r"[a-z0-9]", line):
            requirement = Requirement(line.removesuffix(" \\"))
            if requirement.marker is None or requirement.marker.evaluate(environment):
                (specifier,) = requirement.specifier
                assert specifier.operator == "=="
                found[canonicalize_name(requirement.name)] = specifier.version
    return found


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "service"])
def test_the_larger_images_hold_what_the_manifests_let_out(kind: str) -> None:
    assert {"postgres", "remote", "otel"} <= set(EXTRAS[kind])


@pytest.mark.parametrize("kind", KINDS)
def test_every_image_can_adapt_and_only_one_has_torch(kind: str) -> None:
    adapts = {requirement.name for requirement in asked(EXTRAS[kind])}
    assert {"autograd", "onnx"} <= adapts
    assert ("torch" in adapts) == (kind == "train")


@pytest.mark.parametrize("kind", ["service", "worker"])
def test_an_image_takes_a_lock_without_torch_unless_told(kind: str) -> None:
    dockerfile = (ROOT / f"docker/{kind}.Dockerfile").read_text()
    (lock,) = re.findall(r"^ARG REQUIREMENTS=(\S+)$", dockerfile, re.MULTILINE)
    assert lock in ("service", "service-media")


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_lock_satisfies_what_is_asked_for(kind: str, python: str) -> None:
    versions = locked(kind, python)
    for requirement in asked(EXTRAS[kind]):
        name = canonicalize_name(requirement.name)
        if name == "torch":
            assert name not in versions
        else:
            assert requirement.specifier.contains(versions[name]), requirement


@pytest.mark.parametrize("python", PYTHONS)
def test_service_worker_and_training_compute_with_the_same_versions(python: str) -> None:
    assert locked("service", python).items() <= locked("service-media", python).items()
    assert locked("service-media", python).items() <= locked("train", python).items()


@pytest.mark.parametrize("kind", [*KINDS, "build"])
def test_every_line_has_its_hashes_and_no_address(kind: str) -> None:
    text = (ROOT / f"requirements/{kind}.txt").read_text()
    pinned = re.findall(r"^[a-z0-9][^\n]*\\$", text, re.MULTILINE)
    assert len(pinned) == len(re.findall(r"^[a-z0-9]", text, re.MULTILINE)) > 0
    assert len(re.findall(r"--hash=sha256:[0-9a-f]{64}", text)) >= len(pinned)
    assert "://" not in text


def test_the_build_is_locked() -> None:
    versions = locked("build", "3.11")
    for line in PROJECT["build-system"]["requires"]:
        requirement = Requirement(line)
        assert requirement.specifier.contains(versions[requirement.name])


def test_the_image_for_training_takes_the_torch_of_the_project() -> None:
    (pin,) = [r for r in asked(["train"]) if r.name == "torch"]
    dockerfile = (ROOT / "docker/worker.Dockerfile").read_text()
    (version,) = re.findall(r"^ARG TORCH_VERSION=(\S+)$", dockerfile, re.MULTILINE)
    assert str(pin.specifier) == f"=={version}"


def test_what_torch_needs_is_locked() -> None:
    versions = locked("train", "3.11")
    requires = importlib.metadata.requires("torch") or []
    needs = [Requirement(line) for line in requires if "extra ==" not in line]
    missing = [
        need.name
        for need in needs
        if not re.match(r"nvidia|cuda|triton", need.name)
        and (need.marker is None or need.marker.evaluate())
        and not need.specifier.contains(versions.get(canonicalize_name(need.name), "0"))
    ]
    assert missing == []
