"""What an archive's output is in a folder and in a store; refusals; scoring without a cluster."""

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from nnpm.service import cli
from nnpm.service.inference.audio.waveform import Limits
from nnpm.service.predict.predict import PredictQuery
from nnpm.service.predict.schemas import ModelPart
from nnpm.service.predict.sources import sources
from nnpm.service.predict.tables import columns
from nnpm.service.registry.serving import load_recognizer
from nnpm.service.scale import archive
from nnpm.service.scale.output import Output, OutputError, Part, Recording, require_same
from nnpm.service.scale.scorer import WORKER_DIED, Scorer, Task
from tests.support.sounds import encode, speechlike

pytest.importorskip("pyarrow")
Captured = pytest.CaptureFixture[str]
OF = columns("recording", ["sad"])


@pytest.fixture(params=["folder", "store"])
def output(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Output]:
    yield Output(str(tmp_path / "out") if request.param == "folder" else "memory://bucket/out")
    MemoryFileSystem.store.clear()


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    folder = tmp_path / "clips"
    folder.mkdir()
    for number in range(6):
        (folder / f"{number}.wav").write_bytes(encode(speechlike(0.5, seed=number)))
    (folder / "broken.wav").write_bytes(b"damaged")
    return folder


def test_what_is_written_is_read_again(output: Output) -> None:
    part = Part("part-000001.parquet", 2, 1, 2, 1.5)
    plan = [[Recording("a", "/a", 1)], [Recording("\udcff".encode("utf-8", "surrogateescape")
            .decode("latin-1"), "/\udcff", 0)]]  # fmt: skip
    with output.alone():
        assert output.manifest() is None
        assert output.plan() == []
        assert output.part_names() == set()
        output.write_plan(plan)
        output.write_part(part, [dict.fromkeys(OF)], OF)
        assert output.plan() == plan
        assert output.part_names() == {part.file}
        assert output.read_part(part.file) == part
        output.write(part.file, b"cut off")
        assert output.read_part(part.file) is None


def test_two_runs_do_not_share_an_output(output: Output) -> None:
    with output.alone(), pytest.raises(OutputError, match="Another run writes"), output.alone():
        pass
    with output.alone():
        pass


def test_a_damaged_manifest_or_plan_is_said(output: Output) -> None:
    with output.alone():
        output.write("_manifest.json", b"{")
        output.write("_plan.jsonl.gz", b"x")
        for read in (output.manifest, output.plan):
            with pytest.raises(OutputError, match="is damaged"):
                read()


def test_a_run_goes_on_with_what_it_was_begun_with() -> None:
    head = dict.fromkeys(("nnpm", "model", "bundle", "level"), "1") | {"columns": {}, "options": {}}
    require_same("out", head, head)
    with pytest.raises(Exception, match="was begun with model 2"):
        require_same("out", head | {"model": "2"}, head)
    with pytest.raises(Exception, match="other options"):
        require_same("out", head | {"options": {"digits": 2}}, head)


def test_a_plan_stays_and_grows(clips: Path) -> None:
    found, _ = sources([str(clips)])
    first = archive.extended([], found[:5], workers=1)
    assert [len(part) for part in first] == [2, 2, 1]
    assert archive.extended(first, found[:5], workers=1) == first
    grown = archive.extended(first, found, workers=9)
    assert grown[:3] == first
    assert [one.name for part in grown for one in part] == [one.name for one in found]


def test_large_recordings_make_small_parts(clips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_BYTES", 10)
    big = [Recording(str(n), "", 6) for n in range(3)]
    found = [type("S", (), one._asdict())() for one in big]
    assert [len(part) for part in archive.extended([], found, workers=1)] == [1, 1, 1]


def test_the_rows_of_a_part(clips: Path, models: Path) -> None:
    scorer = Scorer.__new__(Scorer)
    query = PredictQuery()
    scorer._recognizer = load_recognizer(models / "default/1")
    scorer._task = Task({}, query, ModelPart(name="m", version="1", language="und"), Limits(), "")
    scorer._reader = ThreadPoolExecutor(2)
    found, _ = sources([str(clips)])
    recordings = [Recording(one.name, one.place, one.num_bytes) for one in found]
    reported: list[int] = []
    for ahead in (True, False):
        part, rows = scorer.score(7, recordings, reported.append, frozenset({2}), ahead=ahead)
        assert part == Part("part-000007.parquet", 7, 2, 7, pytest.approx(2.5))
        assert [row["file"] for row in rows] == [one.name for one in found]
        errors = {Path(row["file"]).name: row["error"] for row in rows if row["error"]}
        assert errors == {"2.wav": WORKER_DIED.code, "broken.wav": "not_audio"}
    assert reported == [*range(7), *range(7)]


@pytest.fixture
def _models(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NNPM_MODELS", str(models))
    monkeypatch.setattr(archive, "require_ray", lambda: None)


def refused(*arguments: str, captured: Captured) -> str:
    assert cli.main(["predict", *arguments]) == 2
    lines = captured.readouterr().err.splitlines()
    assert len(lines) <= 2, lines  # the model, perhaps, and the reason
    return lines[-1]


def test_ray_absent(clips: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    said = refused(str(clips), "--engine", "ray", "-o", "out", captured=capsys)
    assert (
        said == "nnpm: Ray is not installed; install the extra 'scale': pip install 'nnpm[scale]'."
    )


@pytest.mark.usefixtures("_models")
@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--engine", "ray"], "writes Parquet parts; name a folder"),
        (["--engine", "ray", "-o", "out", "--format", "csv"], "no other --format"),
        (["-o", "s3://bucket/out"], "add --engine ray"),
        (["--address", "auto"], "add --engine ray"),
        (["--engine", "ray", "-o", "nope://x"], "needs fsspec and its driver"),
        (["--engine", "ray", "-o", "out", "--address", "127.0.0.1:1"], "There is no Ray cluster"),
    ],
    ids=lambda value: "" if isinstance(value, str) else " ".join(value),
)
def test_options_that_do_not_go_together(
    arguments: list[str], reason: str, clips: Path, tmp_path: Path, capsys: Captured,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert reason in refused(str(clips), *arguments, captured=capsys)


@pytest.mark.usefixtures("_models")
def test_outputs_that_cannot_be_used(clips: Path, tmp_path: Path, capsys: Captured) -> None:
    with_ray = [str(clips), "--engine", "ray", "-o", str(tmp_path / "out")]
    output = Output(str(tmp_path / "out"))
    with output.alone():
        assert "Another run writes" in refused(*with_ray, captured=capsys)
        output.write_part(Part("part-000000.parquet", 1, 0, 1, 1), [dict.fromkeys(OF)], OF)
    assert "holds an output; add --resume" in refused(*with_ray, captured=capsys)
    assert "and no _manifest.json" in refused(*with_ray, "--resume", captured=capsys)
    assert "standard input" in refused("-", *with_ray[1:], captured=capsys)
    (tmp_path / "file").touch()
    said = refused(*with_ray[:-1], str(tmp_path / "file/below"), captured=capsys)
    assert "cannot be written: Not a directory" in said


class Forbidden(MemoryFileSystem):
    """A bucket without the right to read or write, as drivers report it."""

    protocol = "forbidden"

    def isdir(self, *_: object, **__: object) -> bool:
        raise PermissionError("Access Denied: key AKIA123")

    makedirs = pipe_file = isdir


@pytest.mark.usefixtures("_models")
def test_no_right_to_read_or_write(clips: Path, capsys: Captured) -> None:
    fsspec.register_implementation("forbidden", Forbidden, clobber=True)
    said = refused("forbidden://b/calls", "--engine", "ray", "-o", "out", captured=capsys)
    assert said == "nnpm: forbidden://b/calls cannot be read: PermissionError."
    said = refused(str(clips), "--engine", "ray", "-o", "forbidden://b/out", captured=capsys)
    assert said == "nnpm: forbidden://b/out cannot be written: PermissionError."
