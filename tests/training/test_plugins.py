"""Methods, encoders and corpora of installed packages, and those named by their class."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from nnpm.service.inference.errors import ParameterError
from nnpm.service.jobs.folder import AdaptationTask, JobRequest, read_request
from nnpm.training.corpora import CORPORA, CorpusError, load
from nnpm.training.corpora import PLUGINS as READERS
from nnpm.training.errors import TrainingError
from nnpm.training.plugins import Plugins

CORPUS = """
from pathlib import Path
from nnpm.training.corpora import CORPORA, Utterance
from dataclasses import replace

def read(folder):
    for path in sorted(folder.glob("*.wav")):
        yield Utterance(path=path, corpus="mine", speaker="a", language="de", emotion="sad",
                        raw_label="s", gender="", sentence_id="")

MINE = replace(CORPORA["savee"], name="mine", read=read)
WRONG = 3
"""

Install = Callable[[str, str], None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Put a package where Python finds it, as pip would: its module, and its entry points."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))

    def put(points: str, code: str) -> None:
        about = site / "plugged-1.0.dist-info"
        about.mkdir()
        (about / "METADATA").write_text("Metadata-Version: 2.1\nName: plugged\nVersion: 1.0\n")
        (about / "entry_points.txt").write_text(points)
        (site / "plugged.py").write_text(code)
        sys.modules.pop("plugged", None)
        importlib.invalidate_caches()

    return put


def test_a_corpus_of_an_installed_package_is_read(install: Install, tmp_path: Path) -> None:
    install("[nnpm.corpora]\nmine = plugged:MINE\nsavee = plugged:MINE\n", CORPUS)
    assert READERS.names() == (*CORPORA, "mine")
    assert READERS.find("savee") is CORPORA["savee"]  # nobody takes a name of ours
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/1.wav").touch()
    (found,) = load("mine", tmp_path)
    assert (found.corpus, found.emotion) == ("mine", "sad")


def test_one_that_fails_is_named_and_left_out(
    install: Install, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    points = "[nnpm.corpora]\nbroken = missing_module:X\nwrong = plugged:WRONG\nmine = plugged:MINE"
    install(points, CORPUS)
    assert set(READERS.usable()) == {*CORPORA, "mine"}
    first, second = (record.getMessage() for record in caplog.records)
    assert first == (
        "the corpus broken is left out: missing_module:X cannot be imported: ModuleNotFoundError: "
        "No module named 'missing_module'"
    )
    assert second == "the corpus wrong is left out: plugged:WRONG is no corpus of nnpm"
    with pytest.raises(TrainingError, match="missing_module:X cannot be imported"):
        READERS.find("broken")
    with pytest.raises(CorpusError, match="none of the"):
        load("neither", tmp_path)


def test_code_that_fails_on_import_is_one_line(install: Install) -> None:
    install("", "raise RuntimeError('first\\nsecond')")
    kind = Plugins("nnpm.nothing", "thing", {}, lambda _: True)
    with pytest.raises(TrainingError) as caught:
        kind.find("plugged:X")
    assert str(caught.value) == "plugged:X cannot be imported: RuntimeError: first"


TASK = {"bundle": "b", "target": "t", "out": "o", "threads": 1}


def test_http_takes_installed_names_and_the_command_line_classes(install: Install) -> None:
    with pytest.raises(ParameterError, match="method is 'mine'; it must be one of source_only"):
        read_request(JobRequest, {"method": "mine"})
    install("[nnpm.methods]\nmine = plugged:Mine\n", "raise SystemExit('nobody imports it here')")
    assert read_request(JobRequest, {"method": "mine"}).method == "mine"
    assert read_request(AdaptationTask, {"method": "mine", **TASK}).method == "mine"
    for name in ("plugged:Mine", "os:system", "", "nnpm "):
        with pytest.raises(ParameterError, match="self_training, nnpm, mine"):
            read_request(JobRequest, {"method": name})
    task = read_request(AdaptationTask, {"method": "plugged:Mine", **TASK})
    assert task.method == "plugged:Mine"
    with pytest.raises(ParameterError, match="must be one of"):
        read_request(AdaptationTask, {"method": "plugged:Mine:", **TASK})
