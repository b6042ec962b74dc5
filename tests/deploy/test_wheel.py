"""The wheel: whole, and at work beside somebody's own packages called service and training."""

import json
import os
import re
import subprocess
import sys
import zipfile
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import pytest

from tests.support.sounds import encode, speechlike

ROOT = Path(__file__).parents[2]

# What a wheel could lack: the migrations, the templates, and the numbers of an adaptation.
USE = """
import sys
from pathlib import Path
import nnpm
from nnpm.service.api.reports import report_page
from nnpm.service.jobs.job import Job
from nnpm.service.jobs.store import JobStore
from nnpm.training import config
site, database = sys.argv[1:]
assert Path(nnpm.__file__).is_relative_to(site), nnpm.__file__
store = JobStore(f"sqlite:///{database}")
job = store.create(Job(owner="ann", source="files", language="ur"))
assert store.get(job.id) == job
report = {"verdict": "reject", "reasons": [], "estimated_accuracy": None, "method": "nnpm",
          "clips": {"accepted": 1, "skipped": {}, "examples": {}}, "evidence": {}, "seed": 0,
          "seconds": {}}
assert "reject" in report_page(job, report, "http://localhost:8000", keyed=False)
config.load(config.DEFAULT)
"""


def built(folder: Path, **environment: str) -> Path:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    surroundings = {**os.environ, **environment}
    subprocess.run(build, cwd=ROOT, env=surroundings, check=True, capture_output=True)
    (made,) = folder.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(tmp_path_factory.mktemp("wheel"))


def metadata_of(wheel: Path) -> Message:
    archive = zipfile.ZipFile(wheel)
    (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
    return message_from_bytes(archive.read(name))


RELATIVE = re.compile(r"\]\((?![a-z]+:|#)[^)\s]+\)")


def test_its_metadata_are_complete(wheel: Path) -> None:
    found = metadata_of(wheel)
    assert found["License-Expression"] == "Apache-2.0 AND MIT AND CC-BY-4.0 AND ODbL-1.0"
    assert found["Description-Content-Type"].startswith("text/markdown")
    assert found["Keywords"]
    assert found["Author"]
    assert "Typing :: Typed" in (found.get_all("Classifier") or [])
    assert {"client", "media", "tables", "train"} <= set(found.get_all("Provides-Extra") or [])
    assert RELATIVE.findall(str(found.get_payload())) == []


def test_its_links_lead_to_the_repository_that_the_build_names(tmp_path: Path) -> None:
    found = metadata_of(built(tmp_path, NNPM_REPOSITORY="https://example.org/nnpm/"))
    text = str(found.get_payload())
    assert RELATIVE.findall(text) == []
    assert f"](https://example.org/nnpm/blob/v{found['Version']}/SECURITY.md)" in text
    links = found.get_all("Project-URL") or []
    assert "Repository, https://example.org/nnpm" in links


def test_it_holds_every_file_of_both_packages(wheel: Path) -> None:
    held = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("nnpm/")}
    own = {
        f"nnpm/{path.relative_to(ROOT).as_posix()}"
        for package in ("service", "training")
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    own |= {f"nnpm/{path.name}" for path in (ROOT / "nnpm").glob("*.py")}
    own |= {f"nnpm/models/open/1/{path.name}" for path in (ROOT / "models/open/1").iterdir()}
    assert held == own | {"nnpm/py.typed"}


def test_the_model_wheel_puts_the_other_model_beside(tmp_path: Path) -> None:
    folder = ROOT / "deploy/model-wheel"
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=folder, check=True, capture_output=True)
    (made,) = tmp_path.glob("nnpm_model_default-2*.whl")
    held = {name for name in zipfile.ZipFile(made).namelist() if name.startswith("nnpm/")}
    files = (ROOT / "models/default/2").iterdir()
    assert held == {f"nnpm/models/default/2/{path.name}" for path in files}
    assert metadata_of(made)["License-Expression"] == "CC-BY-NC-SA-4.0"


@pytest.mark.slow  # nine seconds of imports
def test_it_works_beside_packages_of_the_same_names(wheel: Path, tmp_path: Path) -> None:
    site, project = tmp_path / "site", tmp_path / "project"
    zipfile.ZipFile(wheel).extractall(site)
    for package in ("service", "training"):
        (project / package).mkdir(parents=True)
        (project / package / "__init__.py").write_text("raise RuntimeError('not ours')")
    environment = {**os.environ, "PYTHONPATH": f"{project}{os.pathsep}{site}"}

    def python(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=project, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    code = "import sys; from nnpm.service.cli import main; sys.exit(main(sys.argv[1:]))"
    assert python("-c", code, "--version").startswith("nnpm ")
    assert "--target" in python("-c", code, "adapt", "--help")
    (project / "clip.wav").write_bytes(encode(speechlike()))
    answer = json.loads(python("-c", code, "predict", "clip.wav", "--json"))
    assert (answer["model"]["name"], answer["model"]["version"]) == ("open", "1")
    python("-c", USE, str(site), str(tmp_path / "nnpm.db"))
