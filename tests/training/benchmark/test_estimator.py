"""The lines are fitted to other corpora than those they are judged on."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nnpm.training.benchmark import cases, estimator
from nnpm.training.benchmark.cases import Protocol
from nnpm.training.benchmark.command import Request
from nnpm.training.benchmark.estimator import ESTIMATOR, INPUTS, fit, fit_estimator, fit_thresholds
from nnpm.training.benchmark.results import Results, Row
from nnpm.training.errors import TrainingError
from tests.training.benchmark.conftest import write_bundle, write_corpus


def made_row(rng: np.random.Generator, corpus: str, number: int, shift: float = 0.0) -> Row:
    """Accuracy is 0.2 + 0.6 view_agreement + shift; the other figures are noise."""
    figures = {f"{name}_{when}": rng.random() for name in INPUTS for when in ("before", "after")}
    accuracy, base = (
        0.2 + 0.6 * figures[f"view_agreement_{when}"] + shift for when in ("after", "before")
    )
    return {
        "target": corpus,
        "condition": str(number),
        "seed": 0,
        "evidence": [figures],
        "wa": accuracy,
        "right": accuracy * 50,
        "clips": 50,
        "base": {"right": base * 50},
    }


def test_the_figure_that_counts_is_found() -> None:
    rng = np.random.default_rng(0)
    rows = [made_row(rng, corpus, n) for corpus in ("a", "b", "c") for n in range(30)]
    found = fit(rows)
    assert found["accuracy"]["view_agreement"] == pytest.approx(0.6, abs=0.02)
    assert found["accuracy"][""] == pytest.approx(0.2, abs=0.03)
    assert found["gain"]["view_agreement"] == pytest.approx(0.6, abs=0.02)
    assert found["error"] < 0.01
    assert found["sets"] == 90
    assert set(found["errors"]) == {"a", "b", "c"}


def test_the_error_is_that_on_a_corpus_left_out() -> None:
    rng = np.random.default_rng(0)
    rows = [made_row(rng, c, n, 0.2 * (c == "c")) for c in ("a", "b", "c") for n in range(30)]
    assert fit(rows)["errors"]["c"][0] == pytest.approx(0.2, abs=0.03)


def test_thresholds_keep_losers_out_and_winners_in() -> None:
    expected = np.linspace(-0.2, 0.2, 100)
    gain = np.where(np.arange(100) % 10 == 9, -expected, expected)
    found = fit_thresholds(expected, gain)
    assert found["improved_losers"] <= 0.10
    assert found["rejected_winners"] <= 0.05
    assert found["reject_below"] <= found["improved_from"]


def test_no_losers_or_winners() -> None:
    found = fit_thresholds(np.zeros(3), np.zeros(3))
    assert (found["improved_losers"], found["rejected_winners"]) == (0.0, 0.0)


def test_a_whole_call(request_of: Request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tmp_path / "corpora"
    for number, name in enumerate(("home", "abroad", "hindi")):
        write_corpus(data / name, 1 + 0.1 * number)
    everything = Protocol("P3", ("home", "abroad"), ())
    monkeypatch.setitem(cases.PROTOCOLS, "P3", everything)
    monkeypatch.setattr(
        estimator, "DEGRADATIONS", {k: cases.DEGRADATIONS[k] for k in ("recorded", "noise")}
    )
    monkeypatch.setattr(estimator, "_METHODS", ("adabn",))
    other = write_bundle(tmp_path / "other", "abroad").path
    asked = replace(
        request_of,
        data=data,
        bundles=(*request_of.bundles, other),
        protocol="",
        tables=(ESTIMATOR,),
    )
    tables = fit_estimator(asked)
    assert [table.name for table in tables] == ["estimator-lines", "estimator-errors"]
    rows = Results(asked.out / "results.jsonl").read()
    assert {row["target"] for row in rows} == {"home", "abroad", "hindi"}
    counts = {name: sum(row["target"] == name for row in rows) for name in ("home", "hindi")}
    assert counts["home"] == counts["hindi"]  # one bundle each
    fitted = json.loads((asked.out / "estimator.json").read_text())
    assert set(fitted["errors"]) == {"home", "abroad", "hindi"}
    assert fitted["command"].startswith("nnpm benchmark --bundle 2 BUNDLES")
    assert "Errors on corpora left out" in (asked.out / "estimator.md").read_text()
    count = len(rows)
    fit_estimator(asked)
    assert len(Results(asked.out / "results.jsonl").read()) == count


def test_one_corpus_is_too_few(request_of: Request, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(cases.PROTOCOLS, "P3", Protocol("P3", ("home",), ()))
    monkeypatch.setattr(estimator, "load_target", lambda name, *_: (name, []))
    monkeypatch.setattr(estimator, "development_sets", lambda *_: [])
    with pytest.raises(TrainingError, match="leave out 1 development corpora; at least 2"):
        fit_estimator(replace(request_of, tables=(ESTIMATOR,)))
