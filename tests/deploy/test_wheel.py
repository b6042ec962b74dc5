"""The wheel: whole, and at work beside somebody's own packages called service and training."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# What a wheel could lack: the migrations, the templates, and the numbers of an adaptation.
USE = """
import sys
from pathlib import Path
import nnpm
from nnpm.service.api.routes.adapt import report_page
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
assert "reject" in report_page(job, report)
config.load(config.DEFAULT)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


def test_it_holds_every_file_of_both_packages(wheel: Path) -> None:
    held = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("nnpm/")}
    own = {
        f"nnpm/{path.relative_to(ROOT).as_posix()}"
        for package in ("service", "training")
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    own |= {f"nnpm/{path.name}" for path in (ROOT / "nnpm").glob("*.py")}
    assert held == own | {"nnpm/py.typed"}


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
    python("-c", USE, str(site), str(tmp_path / "nnpm.db"))
