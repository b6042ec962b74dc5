"""``nnpm predict``: outputs, resuming, sources, text for people."""

import csv
import io
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas
import pytest
from praatio import textgrid

from nnpm.service import cli
from nnpm.service.cli import predict as command
from nnpm.service.predict.tables import TABLES
from tests.support.sounds import encode, speechlike

pytestmark = pytest.mark.smoke

Captured = pytest.CaptureFixture[str]
ABOUT = "nnpm: model default/2, licence none: made by code\n"
NAMES = ["a.wav", "broken.wav", "c d.flac", "deeper/é.wav"]


@pytest.fixture(autouse=True)
def _models(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NNPM_MODELS", str(models))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "clips"
    (root / "deeper").mkdir(parents=True)
    (root / "a.wav").write_bytes(encode(speechlike(1)))
    (root / "broken.wav").write_bytes(b"damaged")
    (root / "c d.flac").write_bytes(encode(speechlike(2), container="FLAC"))
    (root / "deeper" / "é.wav").write_bytes(encode(call()))
    return root


def call() -> np.ndarray:
    """Two people who speak in turn, 12 s."""
    speech, pause = speechlike(6), np.zeros(6 * 16_000)
    return np.stack([np.append(speech, pause), np.append(pause, speech)], axis=1)


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are scored, in order."""
    names: list[str] = []
    real = command.predict

    def counted(recognizer, source, *args, **kwargs):  # type: ignore[no-untyped-def]
        names.append(getattr(source, "name", "?"))
        return real(recognizer, source, *args, **kwargs)

    monkeypatch.setattr(command, "predict", counted)
    return names


def run(*argv: object, code: int = 0) -> None:
    assert cli.main(["predict", *map(str, argv)]) == code


def files(path: Path) -> list[str]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(dict.fromkeys(row["file"] for row in csv.DictReader(file)))


@pytest.mark.parametrize("name", TABLES)
def test_a_folder_becomes_a_table(name: str, folder: Path, capsys: Captured) -> None:
    output = folder.parent / "new" / f"results{TABLES[name].suffix}"
    run(folder, "-o", output)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == f"{ABOUT}nnpm: {output}: 4 recordings, 1 failed\n"
    read = {
        "csv": pandas.read_csv, "parquet": pandas.read_parquet, "xlsx": pandas.read_excel,
        "jsonl": lambda path: pandas.json_normalize(
            [json.loads(line) for line in path.read_text().splitlines()]
        ),
    }[name]  # fmt: skip
    table = read(output)
    assert list(table["file"]) == [f"{folder}/{file}" for file in NAMES]
    assert list(table["error"].fillna("")) == ["", "not_audio", "", ""]
    assert table["score_sad"].notna().tolist() == [True, False, True, True]
    assert list(output.parent.iterdir()) == [output]


def test_a_summary_instead_of_answers_with_json(folder: Path, capsys: Captured) -> None:
    output = folder / "out.csv"
    run(folder, "-o", output, "--json", "--level", "segment", "--channels", "split")
    assert json.loads(capsys.readouterr().out) == {
        "output": str(output), "format": "csv", "level": "segment", "recordings": 4, "failed": 1,
    }  # fmt: skip
    assert {"0", "1", ""} == {
        row["channel"] for row in csv.DictReader(output.read_text().splitlines())
    }


def test_strict_fails_with_1(folder: Path, capsys: Captured) -> None:
    run(folder, "--strict", code=1)
    run(folder, "--strict", "-o", folder / "out.csv", code=1)
    run(folder, "--strict", "-o", folder / "out.csv", "--resume", code=1)
    run(folder / "broken.wav", "--strict", code=1)
    run(folder / "a.wav", folder / "c d.flac", "--strict")
    run(folder / "broken.wav", code=2)
    run(folder / "broken.wav", "-o", folder / "one.jsonl")
    assert json.loads((folder / "one.jsonl").read_text())["error"] == "not_audio"


@pytest.mark.parametrize("name", TABLES)
def test_an_interrupted_run_is_continued(
    name: str, folder: Path, scored: list[str], capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = folder.parent / f"whole{TABLES[name].suffix}"
    output = folder.parent / f"out{TABLES[name].suffix}"
    options = ("--level", "segment", "--channels", "split", "--jobs", "1")
    run(folder, "-o", whole, *options)
    output.write_text("what was there before")
    scored.clear()
    counted = command.predict

    def interrupted(*args, **kwargs):  # type: ignore[no-untyped-def]
        if len(scored) == 2:
            raise KeyboardInterrupt
        return counted(*args, **kwargs)

    monkeypatch.setattr(command, "predict", interrupted)
    capsys.readouterr()
    run(folder, "-o", output, *options, code=130)
    journal = output.with_name(f"{output.name}.partial")
    assert f"2 of 4 recordings are in {journal}, and --resume" in capsys.readouterr().err
    assert output.read_text() == "what was there before"
    assert scored == ["a.wav", "broken.wav"]

    with journal.open("ab") as file:  # the process was killed while it wrote the third line
        file.write(b'{"file": "c d')
    monkeypatch.setattr(command, "predict", counted)
    run(folder, "-o", output, *options, "--resume")
    assert scored == [Path(file).name for file in NAMES]
    assert not journal.exists()
    table, of = TABLES[name], command.columns("segment", ("angry", "calm", "happy", "sad"))
    assert list(table.read(output, of)) == list(table.read(whole, of))


def test_a_finished_output_is_added_to(folder: Path, scored: list[str]) -> None:
    output = folder.parent / "out.csv"
    run(folder / "a.wav", folder / "broken.wav", "-o", output)
    scored.clear()
    run(folder, "-o", output, "--resume")
    assert sorted(scored) == ["c d.flac", "é.wav"]
    assert files(output) == [f"{folder}/{name}" for name in NAMES]
    # cut off by something else than us: the half-written line is scored again
    text = output.read_text()
    output.write_text(text[: text.rindex("\n", 0, -1) + 30])
    scored.clear()
    run(folder, "-o", output, "--resume")
    assert scored == ["é.wav"]
    assert output.read_text() == text


def test_an_output_of_other_options_is_not_continued(folder: Path, capsys: Captured) -> None:
    output = folder.parent / "out.csv"
    run(folder, "-o", output)
    capsys.readouterr()
    run(folder, "-o", output, "--resume", "--level", "segment", code=2)
    assert "has other columns than this level" in capsys.readouterr().err
    journal = output.with_name("out.csv.partial")
    assert not journal.exists()
    output.unlink()
    journal.write_text('{"level": "segment"}\n')
    run(folder, "-o", output, "--resume", code=2)
    assert f"{journal} was begun with level segment" in capsys.readouterr().err
    journal.write_text("garbage\n")
    run(folder, "-o", output, "--resume", code=2)
    assert f"{journal} is damaged" in capsys.readouterr().err
    run(folder, "-o", output)
    capsys.readouterr()
    run(folder, "-o", output, "--resume", "--model", "default/1", code=2)
    assert f"{output} was made by default/2" in capsys.readouterr().err
    (folder.parent / "bad.parquet").write_text("garbage")
    capsys.readouterr()
    run(folder, "-o", folder.parent / "bad.parquet", "--resume", code=2)
    assert "bad.parquet cannot be continued" in capsys.readouterr().err
    assert (folder.parent / "bad.parquet").read_text() == "garbage"


def test_two_runs_do_not_write_the_same_output(folder: Path, capsys: Captured) -> None:
    output = folder.parent / "out.csv"
    with command.Journal(output, TABLES["csv"], "recording", ("sad",), {}, resume=False):
        run(folder, "-o", output, code=2)
    assert "Another process writes" in capsys.readouterr().err


def test_annotations_of_a_folder_keep_its_shape(folder: Path, capsys: Captured) -> None:
    output = folder.parent / "grids"
    (folder / "a.flac").write_bytes(encode(speechlike(1), container="FLAC"))
    options = ("--format", "textgrid", "--channels", "split", "--no-abstain")
    run(folder, "-o", output, *options)
    assert "broken.wav: Unsupported" in capsys.readouterr().err
    made = sorted(str(path.relative_to(output)) for path in output.rglob("*.TextGrid"))
    assert made == [
        "a.flac.TextGrid", "a.wav.TextGrid", "c d.TextGrid", "deeper/é.TextGrid"
    ]  # fmt: skip
    grid = textgrid.openTextgrid(str(output / "deeper/é.TextGrid"), False)
    assert grid.tierNames == ("channel 0", "channel 1")
    assert grid.maxTimestamp == 12
    run(folder, "-o", output, *options, "--resume", "--strict", code=1)


def test_annotations_are_printed_or_written_as_one_file(folder: Path, capsys: Captured) -> None:
    run(folder / "a.wav", "--format", "srt", "--no-abstain")
    assert capsys.readouterr().out.startswith("1\n00:00:00,")
    run(folder, "--format", "rttm")
    printed = capsys.readouterr().out
    assert {line.split()[1] for line in printed.splitlines()} == {"a", "c_d", "é"}
    run(folder, "-o", folder / "all.rttm")
    assert (folder / "all.rttm").read_text() == printed
    run(folder / "a.wav", "-o", folder / "one.vtt")
    assert (folder / "one.vtt").read_text().startswith("WEBVTT")
    run(folder, "-o", folder / "all.rttm", "--resume", code=2)


def test_csv_and_jsonl_can_be_printed(folder: Path, capfdbinary: pytest.CaptureFixture) -> None:
    run(folder, "--format", "csv")
    table = pandas.read_csv(io.BytesIO(capfdbinary.readouterr().out))
    assert len(table) == 4
    run(folder / "broken.wav", "--format", "jsonl")
    assert json.loads(capfdbinary.readouterr().out)["error"] == "not_audio"


def test_standard_input_is_a_path(
    folder: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = (folder / "a.wav").read_bytes()
    for data, code in ((clip, 0), (b"", 2)):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        run("-", "--json", code=code)
    captured = capsys.readouterr()
    run(folder / "a.wav", "--json")
    file = json.loads(capsys.readouterr().out)
    assert json.loads(captured.out)["scores"] == file["scores"]
    assert "empty (0 bytes)" in captured.err


def test_urls_are_paths(folder: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    store = fsspec.filesystem("memory")
    store.pipe({"/bucket/x/a.wav": (folder / "a.wav").read_bytes(), "/bucket/x/b.txt": b"no"})
    store.pipe({"/bucket/x/deep/broken.wav": b"damaged"})
    run("memory://bucket/x", "--json")
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert (first["file"], second["file"]) == (
        "memory:///bucket/x/a.wav", "memory:///bucket/x/deep/broken.wav"
    )  # fmt: skip
    assert (set(first), second["error"]["code"]) == ({"file", "answer"}, "not_audio")
    run("memory://bucket/x/a.wav", "-o", folder / "a.csv")
    for missing in ("memory://bucket/none", "memory://bucket/x/b.txt/none"):
        run(missing, code=2)
        assert "no such file" in capsys.readouterr().err
    run("nosuch://bucket/x", code=2)
    assert "nosuch:// needs fsspec and its driver" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    run("memory://bucket/x", code=2)
    assert "nnpm[remote]" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["-o", "x.foo"], "ending that names no format; end it in .csv, .jsonl"),
        (["-o", "labels.txt"], "ending that names no format"),
        (["--format", "xlsx"], "cannot be printed; name a file with -o"),
        (["--format", "vtt"], "holds one recording; name a folder"),
        (["--format", "vtt", "--json"], "exclude one another"),
        (["-o", "x.csv", "--format", "text"], "is printed"),
        (["--resume"], "--resume continues an output"),
        (["--jobs", "0"], "--jobs is 0; it must be a number from 1 to 1024"),
        (["--jobs", "many"], "--jobs is many; it must be a number"),
        (["--level", "word"], "--level is word; it must be recording, channel or segment"),
        (["--digits", "10"], "--digits is 10; it must be at most 9"),
        (["--format", "xml"], "invalid choice"),
        (["--emotions", "bored", "-o", "x.csv"], "emotions contains bored"),
        (["-o", "/proc/x.csv"], "/proc"),
        (["-o", "."], "names no format"),
    ],
)
def test_bad_usage_is_one_line_and_2(
    argv: list[str],
    says: str,
    folder: Path,
    capsys: Captured,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(folder.parent)
    before = set(folder.parent.rglob("*"))
    try:
        code = cli.main(["predict", str(folder), *argv])
    except SystemExit as caught:
        code = int(caught.code or 0)
    captured = capsys.readouterr()
    assert (code, captured.out) == (2, "")
    (line,) = captured.err.removeprefix(ABOUT).splitlines()
    assert says in line
    assert set(folder.parent.rglob("*")) == before


def test_what_is_not_installed_is_named(
    folder: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    run(folder, "-o", folder / "x.parquet", code=2)
    assert "needs pyarrow, which is not installed" in capsys.readouterr().err


def test_names_that_are_not_utf8_are_rows(folder: Path) -> None:
    clip = (folder / "a.wav").read_bytes()
    with open(os.fsencode(folder) + b"/caf\xe9\n.wav", "wb") as file:  # noqa: PTH123 (bytes)
        file.write(clip)
    for name in ("out.csv", "out.jsonl", "out.parquet", "out.xlsx"):
        run(folder, "-o", folder.parent / name)
    assert f"{folder}/caf\\xe9\\x0a.wav" in files(folder.parent / "out.csv")


Shown = Callable[..., list[str]]


@pytest.fixture
def shown(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> Shown:
    def lines(*argv: object, terminal: bool) -> list[str]:
        with monkeypatch.context() as patch:
            patch.setattr(sys.stdout, "isatty", lambda: terminal, raising=False)
            run(*argv)
        return capsys.readouterr().out.splitlines()

    return lines


def test_text_shows_the_timeline_of_each_channel(folder: Path, shown: Shown) -> None:
    argv = (folder / "deeper/é.wav", "--channels", "split")
    plain = shown(*argv, terminal=False)
    assert [line.split(":")[0] for line in plain if "channel" in line] == [
        "  channel 0", "  channel 1"
    ]  # fmt: skip
    times = [line for line in plain if line.startswith("    0")]
    assert times[0].startswith("    00:00.0 - 00:")
    assert not any("\x1b" in line or "█" in line for line in plain)


def test_text_names_given_speakers(folder: Path, shown: Shown) -> None:
    turns = folder.parent / "turns.rttm"
    turns.write_text(
        "SPEAKER x 1 0 3 <NA> <NA> Ada <NA> <NA>\nSPEAKER x 1 3 2 <NA> <NA> B\x1bo <NA> <NA>\n"
    )
    argv = (folder / "deeper/é.wav", "--turns", turns, "--no-abstain")
    lines = shown(*argv, terminal=False)
    assert "    00:00.0 - 00:03.0  Ada: " in lines[1]
    assert "00:03.0 - 00:05.0  B\\x1bo: " in lines[2]


def test_a_terminal_shows_a_bar_of_colours(
    folder: Path, shown: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "54")
    argv = (folder / "deeper/é.wav", "--channels", "split", "--no-abstain")
    bars = [line for line in shown(*argv, terminal=True) if "█" in line]
    assert len(bars) == 2
    for bar in bars:
        assert bar.count("█") + bar.count("·") == 50
        assert "\x1b[38;5;" in bar
    monkeypatch.setenv("NO_COLOR", "1")
    assert not any("█" in line for line in shown(*argv, terminal=True))
