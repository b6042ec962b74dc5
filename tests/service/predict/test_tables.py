import io
import json
from pathlib import Path

import pandas
import pytest
from openpyxl import load_workbook

from nnpm.service.inference.errors import ExtraMissingError, ParameterError
from nnpm.service.predict import tables
from nnpm.service.predict.tables import (
    FORMATS,
    TABLES,
    Failure,
    Item,
    columns,
    known_format,
    render,
    require_format,
    rows,
)
from tests.support.answers import LABELS, made_answer

CALL = made_answer(
    [(0, 2, 0, "angry"), (1, 3.25, 1, None), (3, 5, 0, "silence")], channels=2, split=True
)
ITEMS = [
    Item('über uns/call, "1".wav', CALL),
    Item("=cmd|'/c calc'!A0.wav", made_answer([(0, 1, 0, "sad")])),
    Item(
        "broken.wav",
        Failure("not_audio", "Unsupported audio format; send WAV,\nor FLAC."),
        CALL.model,
    ),
]
LEVELS = ("recording", "channel", "segment")
NUM_ROWS = {"recording": 3, "channel": 4, "segment": 5}


def frame(name: str, data: bytes) -> pandas.DataFrame:
    """Read it as a user would, with nothing said about the columns."""
    file = io.BytesIO(data)
    match name:
        case "csv":
            return pandas.read_csv(file)
        case "jsonl":
            return pandas.json_normalize([json.loads(line) for line in data.splitlines()])
        case "parquet":
            return pandas.read_parquet(file)
        case _:
            return pandas.read_excel(file)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", TABLES)
def test_pandas_reads_every_table_on_the_first_try(name: str, level: tables.Level) -> None:
    found = frame(name, render(name, ITEMS, level, LABELS))
    assert list(found.columns) == list(columns(level, LABELS))
    assert len(found) == NUM_ROWS[level]
    assert list(found["file"].unique()) == [item.file for item in ITEMS]
    fine, bad = found[found["error"].isna()], found[~found["error"].isna()]
    assert list(bad["file"]) == ["broken.wav"]
    assert list(bad["error"]) == ["not_audio"]
    assert "or FLAC" in bad["detail"].iloc[0]
    scores = fine[[f"score_{label}" for label in LABELS]].astype(float)
    assert (scores.sum(axis=1) == 1).all()
    assert set(found["version"].astype(str)) == {"2"}
    assert set(fine["confidence"].astype(float)) == {0.625}


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", TABLES)
def test_what_was_written_is_read_back(name: str, level: tables.Level, tmp_path: Path) -> None:
    path = tmp_path / f"out{TABLES[name].suffix}"
    path.write_bytes(render(name, ITEMS, level, LABELS))
    wanted = [row for item in ITEMS for row in rows(item, level, LABELS)]
    assert list(TABLES[name].read(path, columns(level, LABELS))) == wanted
    with pytest.raises(ParameterError, match="other columns"):
        list(TABLES[name].read(path, columns(level, ("calm",))))


@pytest.mark.parametrize("name", TABLES)
def test_a_table_without_rows_has_its_columns(name: str) -> None:
    data = render(name, [], "segment", LABELS)
    if name != "jsonl":
        assert list(frame(name, data).columns) == list(columns("segment", LABELS))


def test_rows_say_what_the_answer_says() -> None:
    (recording,) = rows(ITEMS[0], "recording", LABELS)
    assert (recording["emotion"], recording["channels"], recording["version"]) == ("angry", 2, "2")
    segments = rows(ITEMS[0], "segment", LABELS)
    assert [(one["channel"], one["start_s"], one["end_s"]) for one in segments] == [
        (0, 0, 2), (1, 1, 3.25), (0, 3, 5)
    ]  # fmt: skip
    assert [one["reasons"] for one in segments] == ["", "low_confidence", "no_speech"]
    assert [one["emotion"] for one in segments] == ["angry", None, None]
    channels = rows(ITEMS[0], "channel", LABELS)
    assert [one["channel"] for one in channels] == [0, 1]
    assert [one["channel"] for one in rows(ITEMS[1], "channel", LABELS)] == [0]


def test_segments_name_their_speaker() -> None:
    answer = made_answer([(0, 1, 0, "sad", "Ada"), (1, 2, 0, "sad")])
    assert [row["speaker"] for row in rows(Item("a", answer), "segment", LABELS)] == ["Ada", None]


def test_a_cell_is_never_a_formula_nor_breaks_the_sheet() -> None:
    long = Item("a" * 40_000 + ".wav", made_answer([(0, 1, 0, "sad")]))
    bell = Item("bell\x07.wav", made_answer([(0, 1, 0, "sad")]))
    data = render("xlsx", [ITEMS[1], long, bell], "recording", LABELS)
    sheet = load_workbook(io.BytesIO(data)).worksheets[0]
    assert [sheet.cell(row, 1).data_type for row in (2, 3, 4)] == ["s", "s", "s"]
    assert len(sheet.cell(3, 1).value) == 32_767
    assert sheet.cell(4, 1).value == "bell\ufffd.wav"


def test_a_sheet_that_is_full_is_followed_by_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "_SHEET_ROWS", 3)
    monkeypatch.setattr(tables, "_ROWS_A_GROUP", 2)
    book = load_workbook(io.BytesIO(render("xlsx", ITEMS, "segment", LABELS)))
    assert [sheet.max_row for sheet in book.worksheets] == [3, 3, 2]
    assert len(frame("parquet", render("parquet", ITEMS, "segment", LABELS))) == 5


@pytest.mark.parametrize(("name", "module"), [("parquet", "pyarrow"), ("xlsx", "openpyxl")])
def test_a_package_that_is_missing_is_named(
    name: str, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(ExtraMissingError, match=rf"needs {module}, .*nnpm\[tables\]"):
        require_format(name, many=False)
    require_format("csv", many=True)
    require_format("jsonl", many=True)


def test_unknown_formats_and_many_recordings_in_one_annotation() -> None:
    with pytest.raises(ValueError, match=r"it must be json, csv, .* or audacity"):
        known_format("xml")
    assert known_format("json") == "json"
    with pytest.raises(ParameterError, match="vtt, which holds one recording"):
        require_format("vtt", many=True)
    require_format("rttm", many=True)


def test_media_types_and_endings_are_distinct() -> None:
    for attribute in ("media_type", "suffix"):
        assert len({getattr(form, attribute) for form in FORMATS.values()}) == len(FORMATS)
