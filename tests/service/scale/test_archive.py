"""Archives on a real Ray cluster of this machine, in a real S3-compatible store."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas
import pytest

from nnpm.service import cli
from nnpm.service.scale import archive
from tests.support.jobs import until
from tests.support.scale import LOG, ROOT, Watched, cluster, s3
from tests.support.sounds import encode, speechlike

pytest.importorskip("ray")
pytest.importorskip("moto")

# Ray itself takes 4 s to start, and its workers 3 s.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("log") / "scored"


@pytest.fixture(scope="module")
def ray(log: Path) -> Iterator[None]:
    with s3(), cluster(**{LOG: str(log)}):
        yield


@pytest.fixture(autouse=True)
def _watched(models: Path, monkeypatch: pytest.MonkeyPatch, log: Path, ray: None) -> None:
    monkeypatch.setenv("NNPM_MODELS", str(models))
    monkeypatch.setattr(archive, "Scorer", Watched)
    log.unlink(missing_ok=True)


def bucket(name: str) -> object:
    import boto3

    found = boto3.resource("s3").Bucket(name)
    found.create()
    return found


def test_an_archive_in_a_bucket(capsys: Captured, tmp_path: Path, log: Path) -> None:
    """The rows of the plain command, to the digit; one recording kills each worker."""
    store = bucket("calls")
    for number in range(8):
        data = encode(speechlike(1, seed=number))
        store.put_object(Key=f"in/{number % 2}/é {number}.wav", Body=data)
    store.put_object(Key="in/broken.wav", Body=b"damaged")
    store.put_object(Key="in/notes.txt", Body=b"no audio")
    plain = tmp_path / "plain.parquet"
    assert cli.main(["predict", "s3://calls/in", "-o", str(plain)]) == 0

    store.put_object(Key="in/1/deadly.wav", Body=encode(speechlike(1)))
    command = ["predict", "s3://calls/in/", "-o", "s3://calls/out", "--engine", "ray", "--json"]
    capsys.readouterr()
    assert cli.main(command) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["recordings"], summary["failed"], summary["rows"]) == (10, 2, 10)
    assert summary["audio_s"] == 8.0

    names = {one.key: one.e_tag for one in store.objects.filter(Prefix="out/")}
    parts = {name for name in names if name.endswith(".parquet")}
    assert names.keys() - parts == {"out/_manifest.json", "out/_plan.jsonl.gz"}
    there = [pandas.read_parquet(f"s3://{store.name}/{name}") for name in sorted(parts)]
    found = pandas.concat(there, ignore_index=True)
    deadly = found["file"].str.endswith("deadly.wav")
    assert found[deadly]["error"].tolist() == ["worker_died"]
    assert "2 workers were killed" in found[deadly]["detail"].item()
    expected = pandas.read_parquet(plain)
    pandas.testing.assert_frame_equal(found[~deadly].reset_index(drop=True), expected)

    # another recording arrives: it alone is scored
    log.unlink()
    store.put_object(Key="in/0/later.wav", Body=encode(speechlike(1)))
    assert cli.main(command) == 2
    assert "add --resume" in capsys.readouterr().err
    assert cli.main([*command, "--resume", "--digits", "2"]) == 2
    assert "begun with other options" in capsys.readouterr().err
    assert cli.main([*command, "--resume"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 11
    assert log.read_text() == "s3://calls/in/0/later.wav\n"
    after = {one.key: one.e_tag for one in store.objects.filter(Prefix="out/")}
    assert {name: after[name] for name in parts} == {name: names[name] for name in parts}


def test_a_bucket_that_is_missing(tmp_path: Path, capsys: Captured) -> None:
    command = ["predict", "s3://nowhere/in", "-o", str(tmp_path / "o"), "--engine", "ray"]
    assert cli.main(command) == 2
    assert "s3://nowhere/in: there is no such file or folder." in capsys.readouterr().err
    (tmp_path / "a.wav").write_bytes(encode(speechlike(1)))
    command = ["predict", str(tmp_path), "-o", "s3://nowhere/out", "--engine", "ray"]
    assert cli.main(command) == 2
    assert "s3://nowhere/out cannot be written" in capsys.readouterr().err.splitlines()[-1]


def test_killed_workers_and_a_killed_driver(
    tmp_path: Path, log: Path, models: Path, capsys: Captured
) -> None:
    clips, output, hold = tmp_path / "clips", tmp_path / "out", log.with_name("hold")
    clips.mkdir()
    names = [*(f"{n}.wav" for n in range(8)), "9 once.wav", "x held.wav"]
    for number, name in enumerate(names):
        (clips / name).write_bytes(encode(speechlike(0.5, seed=number)))
    hold.touch()
    code = (
        "import sys\nfrom nnpm.service import cli\nfrom nnpm.service.scale import archive\n"
        "from tests.support.scale import Watched\narchive.Scorer = Watched\n"
        "sys.exit(cli.main(sys.argv[1:]))"
    )
    command = ["predict", str(clips), "-o", str(output), "--engine", "ray", "--jobs", "1"]
    driver = subprocess.Popen(
        [sys.executable, "-c", code, *command],
        env={**os.environ, "PYTHONPATH": str(ROOT), LOG: str(log), "NNPM_MODELS": str(models)},
        stderr=subprocess.DEVNULL,
    )
    try:
        until(lambda: log.exists() and "held" in log.read_text(), 400)
        assert cli.main([*command, "--resume"]) == 2
        assert "Another run writes" in capsys.readouterr().err
    finally:
        driver.send_signal(signal.SIGKILL)
        driver.wait()
        hold.unlink()
    done = {path.name: path.stat().st_mtime_ns for path in output.glob("*.parquet")}
    assert done
    rows = pandas.read_parquet(output)["file"].tolist()

    log.unlink()
    assert cli.main([*command, "--resume", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["recordings"], summary["failed"], summary["rows"]) == (10, 0, 10)
    found = pandas.read_parquet(output)["file"].tolist()
    assert found == [str(clips / name) for name in sorted(names)]  # each once
    assert not {*rows} & {*log.read_text().splitlines()}  # nothing that was done
    assert done.items() <= {p.name: p.stat().st_mtime_ns for p in output.glob("*.parquet")}.items()
