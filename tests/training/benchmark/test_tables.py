"""The arithmetic of the tables, by hand; and what a clip's figures are."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nnpm.service.inference.card import EMOTIONS
from nnpm.training.benchmark.cases import NOISE_DB, PROTOCOLS, noisy, telephone
from nnpm.training.benchmark.results import Row, bootstrap_interval
from nnpm.training.benchmark.tables import (
    Table,
    ablation_tables,
    method_tables,
    strange_tables,
    study_tables,
)
from nnpm.training.benchmark.trial import Answers, score
from nnpm.training.bundle.files import voice
from nnpm.training.corpora import Utterance

P1 = PROTOCOLS["P1"]


def row(target: str, method: str, seed: int, uar: float, **more: Any) -> Row:
    names = ("wa", "macro_f1", "ece", "coverage", "wa_answered", "valence_wa", "valence_uar")
    return {
        "table": "main",
        "target": target,
        "condition": "curated",
        "variant": "",
        "method": method,
        "seed": seed,
        "uar": uar,
        **dict.fromkeys(names, 0.5),
        "wa_open": 0.4,
        "gated": {"uar": 0.25, "wa": 0.25},
        "recall": {"angry": uar},
        "adapted_clips": [8],
        "verdict": ["improved"],
        "estimated": None,
        "estimated_error": None,
        "seconds": 1.0,
        "rise_mib": None,
        "speakers": {"s": [[1, 0, 0, 0]] * 4},
    } | more


def find(tables: list[Table], name: str) -> dict[tuple[str, ...], dict[str, str]]:
    """Rows by their first cells, cells by their column."""
    (table,) = [table for table in tables if table.name == name]
    size = 2 if table.header[1] == "method" else 1
    return {cells[:size]: dict(zip(table.header, cells, strict=True)) for cells in table.rows}


ROWS = [
    row("urdu", "source_only", 0, 0.50),
    row("urdu", "source_only", 1, 0.60),
    row("urdu", "nnpm", 0, 0.70),
    row("urdu", "nnpm", 1, 0.90),
    row("emodb", "source_only", 0, 0.60),
    row("emodb", "source_only", 1, 0.60),
    row("emodb", "nnpm", 0, 0.59),
    row("emodb", "nnpm", 1, 0.61),
    row("nemo", "source_only", 0, 0.10),
    row("nemo", "nnpm", 0, 0.05),
]


def test_means_deviations_and_gains() -> None:
    uar = find(method_tables("main", ROWS, P1), "main-uar")
    nnpm = uar["nnpm",]
    assert nnpm["urdu"] == "0.800 ± 0.141"  # 0.7, 0.9: the sample's deviation is 0.2 / sqrt(2)
    assert nnpm["emodb"] == "0.600 ± 0.014"
    assert nnpm["nemo"] == "0.050"
    assert nnpm["mean"] == "0.700 ± 0.078"  # 0.645 and 0.755 by seed; nemo is outside
    assert nnpm["mean without urdu"] == "0.600 ± 0.014"
    assert nnpm["least gain"] == "-0.050"  # nemo, seed 0
    assert list(uar) == [("source_only",), ("nnpm",)]
    assert list(nnpm)[1:4] == ["urdu", "emodb", "nemo"]


def test_gated_figures_and_uncurated_columns() -> None:
    rows = [*ROWS, row("ased", "nnpm", 0, 0.3, condition="uncurated")]
    tables = method_tables("main", rows, P1)
    assert find(tables, "main-gated-uar")["nnpm",]["urdu"] == "0.250 ± 0.000"
    nnpm = find(tables, "main-uar")["nnpm",]
    assert nnpm["ased (uncurated)"] == "0.300"
    assert nnpm["mean"] == "0.700 ± 0.078"


def test_the_error_of_the_estimates() -> None:
    rows = [
        row("urdu", "nnpm", 0, 0.5, estimated=0.60, estimated_error=0.07, wa=0.5),
        row("urdu", "nnpm", 1, 0.5, estimated=0.50, estimated_error=0.07, wa=0.6),
        row("emodb", "nnpm", 0, 0.5, estimated=0.80, estimated_error=0.07, wa=0.5),
    ]
    found = find(method_tables("main", rows, P1), "main-estimates")
    cells = {cells["target"]: cells["error"] for cells in found.values()}
    assert cells["all"] == "0.167"  # of 0.1, 0.1 and 0.3
    tables = method_tables("main", ROWS, P1)
    assert "main-estimates" not in [table.name for table in tables]  # none was made


def test_the_change_that_an_ablation_makes() -> None:
    rows = [
        row("urdu", "nnpm", 0, 0.8, variant="whole method"),
        row("emodb", "nnpm", 0, 0.6, variant="whole method"),
        row("urdu", "nnpm", 0, 0.7, variant="no views"),
        row("emodb", "nnpm", 0, 0.66, variant="no views"),
    ]
    found = find(ablation_tables(rows, P1), "ablations-uar")["no views",]
    assert (found["mean"], found["change"], found["worst change"]) == ("0.680", "-0.020", "-0.100")


def test_a_study_compares_within_a_condition() -> None:
    rows = [
        row("urdu", "source_only", 0, 0.4, condition="telephone"),
        row("urdu", "nnpm", 0, 0.5, condition="telephone"),
        row("urdu", "source_only", 0, 0.7, condition="noise"),
        row("urdu", "nnpm", 0, 0.6, condition="noise"),
    ]
    found = find(study_tables("degraded", rows, P1), "degraded-uar")
    assert found["telephone", "nnpm"]["least gain"] == "+0.100"
    assert found["noise", "nnpm"]["least gain"] == "-0.100"


def test_strange_verdicts_are_counted() -> None:
    rows = [
        row("music", "nnpm", seed, 0, clips=100, accepted=40, verdict=[verdict])
        for seed, verdict in enumerate(["reject", "refused", "reject"])
    ]
    found = find(strange_tables(rows), "strange-verdicts")["music", "nnpm"]
    assert (found["reject"], found["refused"], found["improved"]) == ("2", "1", "0")


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
    """Forced among angry, happy, neutral, sad; valence and wa_open among all eight."""
    spoken = [
        utterance("angry", "a"),
        utterance("happy", "a"),
        utterance("neutral", "b"),
        utterance("sad", "b"),
    ]
    chances = np.zeros((4, 8), np.float32)

    def tell(clip: int, **shares: float) -> None:
        for emotion, share in shares.items():
            chances[clip, EMOTIONS.index(emotion)] = share

    tell(0, angry=0.3, fear=0.4, happy=0.3)  # a tie goes to the first; negative wins
    tell(1, happy=0.3, sad=0.2, calm=0.5)
    tell(2, neutral=0.2, sad=0.4, surprise=0.4)  # wrong; positive
    tell(3, sad=0.6, calm=0.4)
    answers = Answers(chances, np.zeros((4, 2), np.float32), np.array([0, 0, 0, 1], bool))
    found = score(spoken, answers, EMOTIONS, low_confidence=0.55)
    assert found["wa"] == 0.75
    assert found["recall"] == {"angry": 1.0, "happy": 1.0, "neutral": 0.0, "sad": 1.0}
    assert found["wa_open"] == 0.25  # the last
    assert (found["valence_wa"], found["valence_uar"]) == (1.0, 1.0)
    assert found["confusion"][2] == [0, 0, 0, 1]
    assert found["speakers"]["b"] == [[0] * 4, [0] * 4, [0, 0, 0, 1], [0, 0, 0, 1]]
    # confidences: 0.5 (abstains), 0.6, 0.667, 1 (too far out)
    assert (found["coverage"], found["wa_answered"]) == (0.5, 0.5)


def test_noise_is_ten_decibels_below() -> None:
    sound = voice(150.0, 1.0, seed=0)
    added = noisy(sound).astype(np.float64) - sound
    assert 10 * np.log10(np.mean(sound**2) / np.mean(added**2)) == pytest.approx(NOISE_DB, abs=0.01)
    assert np.array_equal(noisy(sound), noisy(sound))


def test_a_telephone_passes_nothing_above_four_kilohertz() -> None:
    rng = np.random.default_rng(0)
    heard = telephone(rng.standard_normal(16_000).astype(np.float32))
    power = np.abs(np.fft.rfft(heard)) ** 2
    assert len(heard) == 16_000
    assert power[4200:].sum() < 1e-3 * power[:3800].sum()


def test_memory_is_seen_to_rise() -> None:
    # In a fresh process: in an old one memory that was freed before may be taken again.
    code = """
import subprocess
import sys

import numpy as np
from nnpm.training.benchmark.memory_use import watch_memory
with watch_memory() as use:
    taken = np.ones(40 * 2**20, np.uint8)
print(use.rise_mib)
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    if told.stdout.strip() == "None":
        pytest.skip("not on this system")
    assert 35 < float(told.stdout) < 60
