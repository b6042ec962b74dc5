"""Whole calls on small corpora: rows, files, resuming, and what is refused."""

import csv
import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nnpm.service.inference.card import CORE_EMOTIONS
from nnpm.training import cli
from nnpm.training.adaptation.config import AdaptConfig
from nnpm.training.benchmark import command, trial
from nnpm.training.benchmark.cases import all_methods
from nnpm.training.benchmark.command import Request, benchmark
from nnpm.training.benchmark.plan import ABLATIONS, TABLES
from nnpm.training.benchmark.results import Results, Row
from nnpm.training.corpora import CorpusError
from nnpm.training.errors import TrainingError
from tests.support.tiny_bundle import write_first_bundle
from tests.training.benchmark.conftest import write_bundle

MEASURED = {"seconds"}


def rows_of(request: Request) -> list[Row]:
    return Results(request.out / "results.jsonl").read()


class Page(HTMLParser):
    """Collects text, and checks that what opens closes."""

    VOID = frozenset({"meta"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.drawings = 0
        self.names: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.drawings += tag == "svg"
        for name, value in attrs:
            if name == "id":
                self.names.append(value or "")
            elif name in ("src", "href", "xlink:href"):
                self.links.append(value or "")

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_every_table_of_every_method(request_of: Request, monkeypatch: pytest.MonkeyPatch) -> None:
    from nnpm.training.benchmark import cases

    monkeypatch.setattr(cases, "LABELLED", (0, 10, 20))
    monkeypatch.setattr(cases, "CURVE", (20, 50, 100))
    benchmark(replace(request_of, tables=TABLES))
    rows = rows_of(request_of)
    counts = {table: sum(row["table"] == table for row in rows) for table in TABLES}
    methods = len(all_methods())
    assert counts == {
        "main": 2 * methods,  # curated and uncurated
        "inductive": methods,
        "shift": 8 * 3,
        "curve": 2 * 3,  # 20 and 50 of the 72 clips
        "degraded": 3 * 3,
        "labels": 3 * 3,
        "ablations": len(ABLATIONS),
    }
    for table in TABLES:
        text = (request_of.out / f"{table}.md").read_text()
        assert "/tiny --data DIR --protocol tiny" in text
        assert str(request_of.out) not in text
    for path in request_of.out.glob("*.csv"):
        first, *lines = path.read_text().splitlines()
        assert first.startswith("# command: nnpm benchmark")
        header, *cells = csv.reader(lines)
        assert {len(row) for row in cells} == {len(header)}, path.name

    page = Page()
    page.feed((request_of.out / "report.html").read_text())
    assert page.open == []
    text = " ".join(page.text)
    assert all(method in text for method in all_methods())
    assert page.drawings == 4
    assert len(set(page.names)) == len(page.names)
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.names)
    assert all(link.startswith(("#", "data:")) for link in page.links)  # it needs no other file
    names = {path.stem for path in request_of.out.glob("*.svg")}
    assert names == {"uar", "curve", "confusion", "map"}
    points = pd.read_csv(request_of.out / "map.csv", skiprows=1)
    assert points.groupby("method", sort=False).size().to_dict() == {"source_only": 72, "nnpm": 72}
    counts = pd.read_csv(request_of.out / "main-confusion.csv", skiprows=1)
    assert set(counts["method"]) == set(all_methods())
    assert counts[list(CORE_EMOTIONS)].to_numpy().sum() == 2 * 72 * methods


def test_rows_hold_every_figure(request_of: Request) -> None:
    benchmark(replace(request_of, methods=("nnpm",)))
    curated, uncurated = rows_of(request_of)
    assert (curated["clips"], curated["adapted_clips"]) == (72, [72])
    assert (uncurated["clips"], uncurated["adapted_clips"]) == (72, [90])  # with fear
    confusion = curated["confusion"]
    assert sum(map(sum, confusion)) == 72
    assert curated["wa"] == pytest.approx(sum(confusion[i][i] for i in range(4)) / 72)
    recalls = [confusion[i][i] / 18 for i in range(4)]
    assert curated["uar"] == pytest.approx(sum(recalls) / 4)
    assert list(curated["recall"].values()) == pytest.approx(recalls)
    speakers = curated["speakers"].values()
    assert [[sum(s[i][j] for s in speakers) for j in range(4)] for i in range(4)] == confusion
    assert curated["right"] <= 72 * curated["answered"]
    assert curated["seconds"] > 0
    assert len(curated["map"]["points"]) == 72


def test_the_base_is_what_source_only_answers(few: Request) -> None:
    benchmark(few)
    for row in rows_of(few):
        if row["method"] == "source_only":
            assert row["base"] == {name: row[name] for name in trial.COMPARED}


def test_rejected_means_the_base_answers(
    request_of: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = trial.adapt_target

    def reject(*given: object) -> object:
        found = real(*given)  # type: ignore[arg-type]
        return replace(found, evidence=found.evidence.model_copy(update={"verdict": "reject"}))

    monkeypatch.setattr(trial, "adapt_target", reject)
    config = AdaptConfig(steps=30, views=0, learning_rate=0.05, replay_weight=0.0)
    benchmark(replace(request_of, methods=("entropy",), config=config))
    for row in rows_of(request_of):
        assert row["uar"] != row["base"]["uar"]
        assert row["gated"] == row["base"]


def test_the_same_call_gives_the_same_rows(request_of: Request, tmp_path: Path) -> None:
    asked = replace(request_of, methods=("dann", "nnpm"), tables=("main", "inductive"))
    benchmark(asked)
    again = replace(asked, out=tmp_path / "again")
    benchmark(again)
    first, second = (
        [{k: v for k, v in row.items() if k not in MEASURED} for row in rows_of(r)]
        for r in (asked, again)
    )
    assert first == second


@pytest.mark.slow  # two processes import everything anew
def test_two_processes_give_the_same_rows(few: Request, tmp_path: Path) -> None:
    asked = replace(few, tables=("main", "degraded"))
    benchmark(asked)
    parallel = replace(asked, out=tmp_path / "parallel", jobs=2)
    benchmark(parallel)

    def figures(request: Request) -> list[tuple[object, ...]]:
        names = ("table", "condition", "method", "confusion", "ece")
        return sorted((tuple(row[n] for n in names) for row in rows_of(request)), key=str)

    assert figures(asked) == figures(parallel)


def test_what_is_done_is_not_done_again(few: Request, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    real = command.run_trial

    def counted(*given: object) -> object:
        done.append(str(given[3]))
        return real(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(command, "run_trial", counted)
    benchmark(replace(few, methods=("source_only",)))
    assert done == ["source_only"] * 2
    benchmark(few)
    assert done == ["source_only"] * 2 + ["adabn"] * 2
    # another configuration is another row, but not for those whom it does not concern
    other = AdaptConfig.model_validate(few.config.model_dump() | {"coral": {"weight": 3.0}})
    benchmark(replace(few, config=other))
    assert len(done) == 4
    benchmark(replace(few, config=few.config.model_copy(update={"steps": 5})))
    assert len(done) == 8
    # and the tables are of the configuration that was asked for
    text = (few.out / "main-uar.csv").read_text()
    assert len(text.splitlines()) == 2 + 2


def test_features_are_computed_once(few: Request, monkeypatch: pytest.MonkeyPatch) -> None:
    from nnpm.training.benchmark import features

    benchmark(few)
    monkeypatch.setattr(features, "Encoder", None)
    benchmark(replace(few, tables=("main", "inductive"), out=few.out.with_name("other")))


def test_it_says_how_long_it_takes(few: Request, capsys: pytest.CaptureFixture[str]) -> None:
    benchmark(replace(few, methods=("source_only",)))  # embeds the clips
    capsys.readouterr()
    benchmark(replace(few, out=few.out.with_name("later")))
    assert "nnpm benchmark: 4 adaptations, 0 clips to embed; about 1 min" in (
        capsys.readouterr().err
    )
    few = replace(few, out=few.out.with_name("later"))
    benchmark(few)
    assert "adaptations" not in capsys.readouterr().err


def test_the_tables_name_rows_that_other_code_made(
    few: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    benchmark(few)
    assert "rows were made by other code" not in (few.out / "main.md").read_text()
    monkeypatch.setattr(command, "code", lambda: "changed")
    benchmark(replace(few, tables=("main", "inductive")))
    expected = "- code: changed; 4 of the 6 rows were made by other code"
    assert expected in (few.out / "main.md").read_text()


def test_a_crash_costs_half_a_row(few: Request) -> None:
    benchmark(few)
    path = few.out / "results.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])
    benchmark(few)
    found = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(found) == 4
    assert path.read_bytes().startswith(whole[: whole[:-1].rfind(b"\n") + 1])


def test_of_a_source_corpus_only_held_out_speakers_are_scored(few: Request) -> None:
    benchmark(replace(few, development=True))
    for row in rows_of(few):
        assert row["target"] == "home (held out)"
        assert set(row["speakers"]) == {"gita", "jack"}


def test_a_run_is_exported_once(few: Request, monkeypatch: pytest.MonkeyPatch) -> None:
    from nnpm.training.bundle import export

    asked: list[Path] = []

    def write(run: Path, out: Path, **_: object) -> None:
        asked.append(run)
        write_bundle(out, seed=3)

    monkeypatch.setattr(export, "export", write)
    for _ in range(2):
        benchmark(replace(few, bundles=(), runs=(Path("runs/tiny-3"),)))
    assert asked == [Path("runs/tiny-3")]
    assert {row["seed"] for row in rows_of(few)} == {3}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"methods": ("nnpm", "magic")}, "there is no method magic; choose among source_only"),
        ({"tables": ("main", "mane")}, "there is no table mane; choose among main"),
        ({"methods": ("nnpm", "nnpm")}, "--methods names one twice"),
        ({"targets": ("abroad", "abroad")}, "--targets names one twice"),
        ({"protocol": "P3"}, "has learnt from home; P3 is of ravdess, crema, nemo, banglaser"),
        ({"protocol": "P9"}, "there is no protocol P9; choose among P1"),
        ({"jobs": 0}, "--jobs is 0; at least 1 is required"),
        ({"bundles": ()}, "--bundle names 0 bundles"),
    ],
)
def test_wrong_requests_are_refused(few: Request, change: dict[str, object], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        benchmark(replace(few, **change))  # type: ignore[arg-type]


def test_bundles_must_be_of_one_protocol_and_several_seeds(few: Request, tmp_path: Path) -> None:
    other = write_bundle(tmp_path / "other", "abroad", 1).path
    same = write_bundle(tmp_path / "same").path
    for path, message in (
        (other, "has learnt from other corpora than"),
        (same, "the 2 bundles have the seeds 0, 0; each must be there once"),
    ):
        with pytest.raises(TrainingError, match=message):
            benchmark(replace(few, bundles=(*few.bundles, path)))


def test_two_seeds_stand_in_one_table(few: Request, tmp_path: Path) -> None:
    second = write_bundle(tmp_path / "second", seed=1).path
    benchmark(replace(few, bundles=(second, *few.bundles), protocol=""))
    cells = pd.read_csv(few.out / "main-uar.csv", skiprows=1)
    assert cells["abroad"].str.contains("±").all()


def test_a_bundle_of_the_first_generation_is_refused(few: Request, tmp_path: Path) -> None:
    old = write_first_bundle(tmp_path / "old").path
    with pytest.raises(TrainingError, match="of the first generation, which cannot be adapted"):
        benchmark(replace(few, bundles=(old,)))


def test_a_corpus_that_is_not_there(few: Request) -> None:
    with pytest.raises(CorpusError, match="nowhere"):
        benchmark(replace(few, targets=("nowhere",)))
    assert not few.out.exists()


def test_a_file_of_something_else_is_left_alone(few: Request) -> None:
    few.out.mkdir()
    (few.out / "results.jsonl").write_text("a shopping list\n")
    with pytest.raises(TrainingError, match="is damaged"):
        benchmark(few)
    assert (few.out / "results.jsonl").read_text() == "a shopping list\n"


def test_the_command_line(few: Request, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["benchmark", "--data", str(few.data), "--out", str(few.out), "--bundle"]
    common += [str(few.bundles[0]), "--cache", str(few.cache)]
    assert cli.main([*common, "--methods", "magic"]) == 2
    assert "there is no method magic" in capsys.readouterr().err
    assert cli.main([*common, "--targets", "missing"]) == 2
    message = capsys.readouterr().err
    assert "missing" in message
    assert message.count("\n") == 1
    assert cli.main([*common, "--targets", "abroad", "--methods", "source_only", "adabn"]) == 0
    out = capsys.readouterr().out
    assert "Transductive: UAR" in out
    assert "Transductive: clips answered right" in out
    assert np.any([line.startswith("| adabn |") for line in out.splitlines()])
