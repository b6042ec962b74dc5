"""The arithmetic of the tables, by hand; and what a clip's figures are."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from nnpm.service.inference.card import EMOTIONS
from nnpm.training.adaptation.decision import Served
from nnpm.training.benchmark.cases import PROTOCOLS
from nnpm.training.benchmark.results import Row, read_frame, to_frame
from nnpm.training.benchmark.tables import Table, tables_by_name
from nnpm.training.benchmark.trial import Answers, score
from nnpm.training.corpora import Utterance
from nnpm.training.evaluation import bootstrap_interval

P3 = PROTOCOLS["P3"]
RESULTS = Path(__file__).parents[3] / "benchmarks/results"
COMMITTED = sorted(
    path.parent.name
    for path in RESULTS.glob("adaptation_*/results.csv")
    if ",base_uar," in path.read_text()  # those of the first generation have other tables
)
NOT_FROM_ROWS = {
    f"{name}-{part}" for name in ("main", "inductive") for part in ("intervals", "confusion")
}
"""These need the confusions, which results.csv does not hold."""
LABELS = ("target", "method", "condition", "variant")


def row(target: str, method: str, seed: int, uar: float, **more: Any) -> Row:
    names = ("wa", "macro_f1", "ece", "answered", "accuracy_answered", "valence_wa", "valence_uar")
    compared = {"uar": 0.5, "wa": 0.5, "ece": 0.5, "answered": 0.8, "right": 40}
    return {
        "table": "main",
        "target": target,
        "condition": "curated",
        "variant": "",
        "method": method,
        "seed": seed,
        "fingerprint": "00e1",
        "clips": 100,
        "uar": uar,
        "right": 50,
        **dict.fromkeys(names, 0.5),
        "base": {**compared, "accuracy_answered": 0.5},
        "gated": {**compared, "uar": 0.25, "accuracy_answered": 0.5},
        "recall": {"angry": uar},
        "adapted_clips": [8],
        "verdict": ["improved"],
        "estimated": None,
        "estimated_error": None,
        "seconds": 1.0,
        "speakers": {"s": [[1, 0, 0, 0]] * 4},
    } | more


def find(rows: list[Row], name: str) -> dict[tuple[str, ...], dict[str, str]]:
    """Rows of one table by their first cells, cells by their column."""
    (table,) = [table for table in every_table(rows) if table.name == name]
    cells = [dict(zip(table.frame.columns, row, strict=True)) for row in table.frame.to_numpy()]
    size = 2 if table.frame.columns[1] in ("method", "target") else 1
    return {tuple(row.values())[:size]: row for row in cells}


def every_table(rows: list[Row]) -> list[Table]:
    return [table for tables in tables_by_name(to_frame(rows), P3).values() for table in tables]


ROWS = [
    row("urdu", "source_only", 0, 0.50),
    row("urdu", "source_only", 1, 0.60),
    row("urdu", "nnpm", 0, 0.70),
    row("urdu", "nnpm", 1, 0.90),
    row("emodb", "source_only", 0, 0.60),
    row("emodb", "source_only", 1, 0.60),
    row("emodb", "nnpm", 0, 0.49),
    row("emodb", "nnpm", 1, 0.71),
]


def test_means_deviations_and_gains() -> None:
    uar = find(ROWS, "main-uar")
    nnpm = uar["nnpm",]
    assert nnpm["urdu"] == "0.800 ± 0.141"  # 0.7, 0.9: the sample's deviation is 0.2 / sqrt(2)
    assert nnpm["emodb"] == "0.600 ± 0.156"
    assert nnpm["mean"] == "0.700 ± 0.148"  # 0.595 and 0.805 by seed
    assert nnpm["mean without urdu"] == "0.600 ± 0.156"
    assert nnpm["least gain"] == "-0.010"  # emodb, seed 0, against a base of 0.5
    assert list(uar) == [("source_only",), ("nnpm",)]
    assert list(nnpm)[1:3] == ["urdu", "emodb"]


def test_gated_figures_and_uncurated_columns() -> None:
    rows = [*ROWS, row("ased", "nnpm", 0, 0.3, condition="uncurated")]
    assert find(rows, "main-gated-uar")["nnpm",]["urdu"] == "0.250 ± 0.000"
    nnpm = find(rows, "main-uar")["nnpm",]
    assert nnpm["ased (uncurated)"] == "0.300"
    assert nnpm["mean"] == "0.700 ± 0.148"


def test_clips_answered_right_before_and_after() -> None:
    rows = [row("urdu", "nnpm", 0, 0.7, right=60), row("urdu", "nnpm", 1, 0.7, right=39)]
    found = find(rows, "main-right")["nnpm",]
    assert found["urdu"] == "40 → 50 of 100"
    assert found["least gain"] == "-1"
    served = find(rows, "main-served")["urdu", "nnpm"]
    assert served["answered, before"] == "0.800 ± 0.000"
    assert served["answered, after"] == "0.500 ± 0.000"


def test_verdicts_and_how_often_they_are_wrong() -> None:
    rows = [
        row("urdu", "nnpm", 0, 0.40),  # a loser, called improved
        row("urdu", "nnpm", 1, 0.45, verdict=["reject"]),
        row("emodb", "nnpm", 0, 0.60, verdict=["reject"]),  # a winner, rejected
        row("emodb", "nnpm", 1, 0.60, verdict=["no change"]),
        row("ased", "nnpm", 0, 0.49),  # neither
    ]
    found = find(rows, "main-verdicts")["nnpm",]
    assert [found[name] for name in ("improved", "no change", "reject")] == [2, 1, 2]
    assert [found[name] for name in ("losers", "called improved")] == [2, 1]
    assert [found[name] for name in ("winners", "rejected")] == [2, 1]


def test_the_error_of_the_estimates() -> None:
    rows = [
        row("urdu", "nnpm", 0, 0.5, estimated=0.60, estimated_error=0.07, wa=0.5),
        row("urdu", "nnpm", 1, 0.5, estimated=0.50, estimated_error=0.07, wa=0.6),
        row("emodb", "nnpm", 0, 0.5, estimated=0.80, estimated_error=0.07, wa=0.5),
    ]
    found = find(rows, "main-estimates")
    cells = {target: cells["error"] for (_, target), cells in found.items()}
    assert cells["all"] == "0.167"  # of 0.1, 0.1 and 0.3
    assert found["nnpm", "all"]["worst"] == "0.300"
    assert "main-estimates" not in [table.name for table in every_table(ROWS)]  # none was made


def test_the_change_that_an_ablation_makes() -> None:
    rows = [
        row("urdu", "nnpm", 0, 0.8, table="ablations", variant="whole method"),
        row("emodb", "nnpm", 0, 0.6, table="ablations", variant="whole method"),
        row("urdu", "nnpm", 0, 0.7, table="ablations", variant="no views"),
        row("emodb", "nnpm", 0, 0.66, table="ablations", variant="no views"),
    ]
    found = find(rows, "ablations-uar")["no views",]
    assert (found["mean"], found["change"]) == ("0.680", "-0.020")


def test_a_study_stands_by_condition() -> None:
    rows = [
        row("urdu", "adabn", 0, 0.4, table="degraded", condition="telephone"),
        row("urdu", "nnpm", 0, 0.6, table="degraded", condition="telephone"),
        row("urdu", "nnpm", 0, 0.3, table="degraded", condition="noise"),
    ]
    found = find(rows, "degraded-uar")
    assert found["telephone", "nnpm"]["least gain"] == "+0.100"
    assert found["noise", "nnpm"]["least gain"] == "-0.200"
    assert find(rows, "degraded-right")["telephone", "adabn"]["urdu"] == "40 → 50 of 100"


def test_the_mean_of_a_study_is_over_the_targets_that_have_the_condition() -> None:
    rows = [
        row("urdu", "nnpm", 0, 0.4, table="curve", condition="400 clips"),
        row("urdu", "nnpm", 1, 0.6, table="curve", condition="400 clips"),
        row("urdu", "nnpm", 0, 0.3, table="curve", condition="20 clips"),
        row("emodb", "nnpm", 0, 0.5, table="curve", condition="20 clips"),
    ]
    found = find(rows, "curve-uar")
    assert found["400 clips", "nnpm"]["mean"] == "0.500 ± 0.141"
    assert found["20 clips", "nnpm"]["mean"] == "0.400"


@pytest.mark.parametrize("name", COMMITTED)
def test_the_committed_tables_follow_from_the_committed_rows(name: str) -> None:
    """The files hold six digits of every figure, and the tables were made of all digits."""
    folder = RESULTS / name
    protocol = PROTOCOLS[name.split("_", 1)[1].removesuffix("_development")]
    groups = tables_by_name(read_frame(folder / "results.csv"), protocol)
    tables = [table for tables in groups.values() for table in tables]
    names = {table.name for table in tables}
    assert names == {path.stem for path in folder.glob("*-*.csv")} - NOT_FROM_ROWS
    for table in tables:
        theirs = pd.read_csv(folder / f"{table.name}.csv", skiprows=1, dtype=str)
        assert sorted(table.frame.columns) == sorted(theirs.columns)
        label = [name for name in LABELS if name in theirs]
        theirs = theirs.set_index(label).sort_index()
        ours = table.frame.astype(str).set_index(label).sort_index()
        assert ours.index.tolist() == theirs.index.tolist()
        for column in theirs:
            for cell, expected in zip(ours[column], theirs[column], strict=True):
                assert differs_by(cell, expected) <= 1, f"{table.name}, {column}"


def differs_by(cell: str, expected: str) -> float:
    """Largest difference of the numbers in two cells, in units of their last place."""
    if cell == expected:
        return 0
    pairs = list(zip(cell.split(" ± "), expected.split(" ± "), strict=True))
    digits = len(expected.partition(" ")[0].partition(".")[2])
    return max(round(abs(float(x) - float(y)) * 10**digits, 6) for x, y in pairs)


def test_rows_come_back_from_their_file(tmp_path: Path) -> None:
    frame = to_frame(ROWS).drop(columns="speakers").dropna(axis=1, how="all")
    path = tmp_path / "results.csv"
    path.write_text(Table("results", "", "", frame).csv({"made": "here"}))
    pd.testing.assert_frame_equal(read_frame(path), frame, check_dtype=False)


def test_the_interval_of_speakers_that_are_alike_is_a_point() -> None:
    same = {f"s{n}": [[3, 1, 0, 0], [0, 4, 0, 0], [0, 0, 4, 0], [2, 0, 0, 2]] for n in range(6)}
    found = bootstrap_interval([same, same])
    assert found is not None
    assert np.array(found) == pytest.approx(np.array([[13 / 16] * 2] * 2))
    assert bootstrap_interval([{"": same["s0"]}]) is None


def test_the_interval_is_that_of_a_bootstrap_of_means() -> None:
    rng = np.random.default_rng(0)
    hits = rng.integers(0, 11, 40)
    speakers = {
        f"s{n:02}": [[int(h), 10 - int(h), 0, 0], [0, 0, 0, 0], [0] * 4, [0] * 4]
        for n, h in enumerate(hits)
    }
    found = bootstrap_interval([speakers])
    assert found is not None
    error = np.std(hits / 10) / np.sqrt(40)  # of a mean
    expected = np.mean(hits / 10) + np.array([-1.96, 1.96]) * error
    assert np.array(found[1]) == pytest.approx(expected, abs=0.015)


def utterance(emotion: str, speaker: str) -> Utterance:
    return Utterance(Path(f"/{emotion}-{speaker}.wav"), "made", speaker, "en", emotion)


def test_figures_of_four_clips() -> None:
    """Forced among angry, happy, neutral, sad; valence and served among all eight."""
    spoken = [
        utterance("angry", "a"),
        utterance("happy", "a"),
        utterance("neutral", "b"),
        utterance("sad", "b"),
    ]
    shares = (
        {"angry": 0.3, "fear": 0.4, "happy": 0.3},  # a tie goes to the first; negative wins
        {"happy": 0.5, "sad": 0.2, "calm": 0.3},
        {"neutral": 0.2, "sad": 0.4, "surprise": 0.4},  # wrong; positive
        {"sad": 0.6, "calm": 0.4},
    )
    chances = np.array([[one.get(e, 0.0) for e in EMOTIONS] for one in shares], np.float32)
    core = np.array([e in ("angry", "happy", "neutral", "sad") for e in EMOTIONS])
    own = np.where(core, chances, 0)
    served = Served(chances, np.array([True, True, True, False]))
    forced = Served(own / own.sum(1, keepdims=True), served.answered)
    found = score(spoken, [Answers(forced, served)], EMOTIONS)
    assert found["wa"] == 0.75
    assert found["recall"] == {"angry": 1.0, "happy": 1.0, "neutral": 0.0, "sad": 1.0}
    assert (found["valence_wa"], found["valence_uar"]) == (1.0, 1.0)
    assert found["confusion"][2] == [0, 0, 0, 1]
    assert found["speakers"]["b"] == [[0] * 4, [0] * 4, [0, 0, 0, 1], [0, 0, 0, 1]]
    # as served: fear, happy, sad; the last is not answered
    assert (found["answered"], found["right"]) == (0.75, 1)
    assert found["accuracy_answered"] == pytest.approx(1 / 3)


def test_several_parts_are_counted_together() -> None:
    spoken = [utterance("angry", "a"), utterance("sad", "b")]
    chances = np.eye(8, dtype=np.float32)[[EMOTIONS.index("angry")]]
    one = Served(chances, np.array([True]))
    found = score(spoken, [Answers(one, one), Answers(one, one)], EMOTIONS)
    assert (found["clips"], found["wa"], found["right"]) == (2, 0.5, 1)
