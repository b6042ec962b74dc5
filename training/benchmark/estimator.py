"""Fit the estimate of the accuracy without labels, and the verdict, where labels may be used.

Each bundle is adapted to corpora that it has not learnt from and that are for development: those
that its protocol leaves out, and Hindi; as recorded, degraded, resampled, and with few clips. The
lines are fitted to all corpora but one, and judged on that one, in turn.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ...service.files import replacing
from ...service.inference.bundle import Bundle
from ..corpora import Utterance
from ..errors import TrainingError
from .cases import DEGRADATIONS, PROTOCOLS, Case, Part, core_clips, resampled
from .command import Request, check, compute, open_bundles, seed_of, source_of
from .features import load_target
from .plan import Unit, make_trials
from .report import render
from .results import Results, Row, key, provenance
from .tables import LOSS, Table

ESTIMATOR = "estimator"
"""The name that ``--tables`` has for this."""

_METHODS = ("adabn", "nnpm")
_MOST_CLIPS = 800  # of a corpus: there are 44 sets of each, and an estimate needs no more
_FEW = (20, 50)

INPUTS = (
    "plain_confidence",
    "confidence",
    "class_confidence",
    "nuclear_norm",
    "memory_agreement",
    "view_agreement",
    "effective_emotions",
    "largest_share",
)
"""Figures of :func:`nnpm.training.adaptation.evidence.observe` that the lines may use."""

_MOST_INPUTS = 6
_RIDGE = 0.01
"""Of the coefficients of standardised inputs, relative to the number of rows."""

_IMPROVED_LOSERS = 0.10
_REJECTED_WINNERS = 0.05
"""A quarter would be allowed; but a model that is not published helps nobody."""


def fit_estimator(request: Request) -> list[Table]:
    """Compute the rows that are missing, fit, and write ``estimator.json`` and ``.md``.

    Args:
        request: its bundles may be of several protocols; its targets, methods and tables do not
            count.

    Returns:
        Coefficients, and errors on each corpus that was left out.

    Raises:
        TrainingError: if the bundles leave fewer than two corpora out.
        CorpusError: if a corpus cannot be read.
        BundleError: if a bundle cannot be read.
    """
    check(replace(request, tables=()), ())
    results = Results(request.out / "results.jsonl")
    done = {key(row) for row in results.read()}
    networks = open_bundles(request)
    planned: list[Unit] = []
    for number, bundle in enumerate(networks):
        planned += _units(number, bundle, request, {(u.target, u.seed) for u in planned})
    corpora = sorted({unit.target for unit in planned})
    if len(corpora) < 2:
        raise TrainingError(
            f"the bundles leave out {len(corpora)} development corpora; at least 2 are required: "
            "give bundles of without_ravdess, without_crema and so on (make networks)"
        )
    compute([unit.without(done) for unit in planned], networks, request, results)
    wanted = {row for unit in planned for row in unit.row_keys()}
    rows = [row for row in results.read() if key(row) in wanted]
    fitted = fit(rows)
    facts = provenance(
        f"nnpm benchmark --bundle {len(networks)} BUNDLES --data DIR --tables {ESTIMATOR} "
        "--out FOLDER"
    )
    tables = _tables(fitted)
    text = render("tables.md", name=ESTIMATOR, tables=tables, protocol=None, facts=facts)
    for name, content in (("md", text), ("json", json.dumps({**facts, **fitted}, indent=1) + "\n")):
        with replacing(request.out / f"{ESTIMATOR}.{name}") as temporary:
            temporary.write_text(content, encoding="utf-8")
    return tables


def _units(
    number: int, bundle: Bundle, request: Request, covered: set[tuple[str, int]]
) -> list[Unit]:
    """The development sets of one bundle: of corpora that it has not learnt from.

    A corpus that another bundle of the same seed covers is left out: with four bundles Hindi would
    count four times as much as any other.
    """
    seed, views = seed_of(bundle), request.config.views
    units = []
    for name in (*PROTOCOLS["P3"].source, "hindi"):
        if name in source_of(bundle) or (name, seed) in covered:
            continue
        _, utterances = load_target(name, request.data, bundle)
        chosen = np.random.default_rng(0).permutation(len(utterances))[:_MOST_CLIPS]
        utterances = [utterances[place] for place in np.sort(chosen)]
        cases = development_sets(utterances, np.random.default_rng([seed, 0]))
        contenders = [(method, "", request.config) for method in _METHODS]
        trials = make_trials(bundle.card.files["model.onnx"], utterances, cases, contenders)
        units.append(Unit(ESTIMATOR, name, number, seed, utterances, views, trials))
    return units


def development_sets(utterances: Sequence[Utterance], rng: np.random.Generator) -> list[Case]:
    """A corpus whole, resampled, and by few clips, each as recorded and degraded."""
    core = core_clips(utterances)
    order = rng.permutation(core)
    cases = [Case("all", (Part(core, core),)), *resampled(utterances, rng)]
    for size in _FEW:
        chosen = np.sort(order[:size])
        cases.append(Case(f"{size} clips", (Part(chosen, chosen),)))
    return [
        replace(case, condition=f"{case.condition}, {kind}", degradation=kind)
        for kind in DEGRADATIONS
        for case in cases
    ]


def fit(rows: Sequence[Row]) -> dict[str, Any]:
    """Fit the accuracy, and the gain over the base, to label-free figures.

    Args:
        rows: of trials whose adapted and scored clips are the same.

    Returns:
        ``accuracy``: coefficients by figure, the intercept has no name; ``error``, ``worst``: the
        absolute error on corpora left out, in the mean and on the worst set; ``interval``: the
        error that 90 % of the sets stay below; ``gain``: coefficients by figure of the difference
        after - before, of the share of clips answered right as served; ``improved_from``,
        ``reject_below``: thresholds of the estimated gain;
        ``improved_losers``, ``rejected_winners``: shares on corpora left out; ``errors``: mean and
        worst error by corpus; ``sets``: how many.

    References:
        Several figures in one line: Guillory et al., arXiv 2107.03315, and others fail one by one
        under label shift (Rosenfeld & Garg, arXiv 2306.00312). Folds are corpora, never resamples
        of one: those of the same clips are no independent evidence.
    """
    corpus = np.array([row["target"] for row in rows])
    figures = [row["evidence"][0] for row in rows]
    inputs = [name for name in INPUTS if all(f"{name}_after" in one for one in figures)]
    after, before = (
        np.array([[one[f"{name}_{when}"] for name in inputs] for one in figures])
        for when in ("after", "before")
    )
    accuracy = np.array([row["wa"] for row in rows])
    # as served, abstention included: what a user gains
    gain = np.array([(row["right"] - row["base"]["right"]) / row["clips"] for row in rows])
    chosen = _choose(after, accuracy, corpus)
    line, left_out = _line(after[:, chosen], accuracy), _folded(after[:, chosen], accuracy, corpus)
    error = np.abs(np.clip(left_out, 0, 1) - accuracy)
    change = after - before
    chosen_gain = _choose(change, gain, corpus)
    gain_line = _line(change[:, chosen_gain], gain)
    expected = _folded(change[:, chosen_gain], gain, corpus)
    thresholds = fit_thresholds(expected, gain)
    return {
        "accuracy": _named(line, [inputs[i] for i in chosen]),
        "error": round(float(error.mean()), 4),
        "worst": round(float(error.max()), 4),
        "interval": round(float(np.quantile(error, 0.9)), 4),
        "gain": _named(gain_line, [inputs[i] for i in chosen_gain]),
        **thresholds,
        "errors": {
            name: [round(float(value), 4) for value in (part.mean(), part.max())]
            for name in sorted(set(corpus))
            for part in [error[corpus == name]]
        },
        "sets": len({(row["target"], row["condition"], row["seed"]) for row in rows}),
    }


def fit_thresholds(expected: NDArray[np.float64], gain: NDArray[np.float64]) -> dict[str, float]:
    """Thresholds of an estimated gain: from where it is improved, and below which it is rejected.

    Args:
        expected: estimated gains, each by a line that did not see its corpus.
        gain: true gains.

    Returns:
        ``improved_from``: the lowest at which at most 10 % of the losers are called improved;
        ``reject_below``: the highest, not above it, at which at most 5 % of the winners are
        rejected; and both shares.

    Examples:
        >>> found = fit_thresholds(np.array([-0.2, 0.1, 0.3]), np.array([-0.1, 0.2, 0.3]))
        >>> found["improved_losers"], found["rejected_winners"]
        (0.0, 0.0)
    """
    losers, winners = expected[gain < -LOSS], expected[gain > 0]
    tried = np.unique(np.concatenate([expected, [0.0, expected.max() + 1e-3]]))
    allowed = [t for t in tried if _share(losers >= t) <= _IMPROVED_LOSERS]
    improved = float(min(allowed))
    low = [t for t in tried if t <= improved and _share(winners < t) <= _REJECTED_WINNERS]
    reject = float(max(low, default=tried[0]))
    return {
        "improved_from": round(improved, 6),
        "reject_below": round(reject, 6),
        "improved_losers": _share(losers >= improved),
        "rejected_winners": _share(winners < reject),
    }


def _share(hits: NDArray[np.bool_]) -> float:
    return round(float(hits.mean()), 4) if len(hits) else 0.0


def _choose(
    inputs: NDArray[np.float64], target: NDArray[np.float64], corpus: NDArray[np.str_]
) -> list[int]:
    """Add the input that lowers the error on corpora left out most, while one does; six at most."""
    chosen: list[int] = []
    best = np.inf
    while len(chosen) < min(_MOST_INPUTS, inputs.shape[1]):
        errors = {
            one: np.abs(_folded(inputs[:, [*chosen, one]], target, corpus) - target).mean()
            for one in range(inputs.shape[1])
            if one not in chosen
        }
        one = min(errors, key=errors.__getitem__)
        if errors[one] >= best:
            break
        best = errors[one]
        chosen.append(one)
    return chosen


def _folded(
    inputs: NDArray[np.float64], target: NDArray[np.float64], corpus: NDArray[np.str_]
) -> NDArray[np.float64]:
    """Estimates, each by a line through the other corpora."""
    found = np.zeros(len(target))
    for name in np.unique(corpus):
        line = _line(inputs[corpus != name], target[corpus != name])
        found[corpus == name] = line[0] + inputs[corpus == name] @ line[1:]
    return found


def _line(inputs: NDArray[np.float64], target: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ridge regression: intercept, then coefficients."""
    mean, deviation = inputs.mean(0), inputs.std(0) + 1e-9
    standard = (inputs - mean) / deviation
    penalty = _RIDGE * len(target) * np.eye(inputs.shape[1])
    slope = np.linalg.solve(standard.T @ standard + penalty, standard.T @ (target - target.mean()))
    slope = slope / deviation
    return np.concatenate([[target.mean() - mean @ slope], slope])


def _named(line: NDArray[np.float64], names: Sequence[str]) -> dict[str, float]:
    return {name: round(float(value), 6) for name, value in zip(("", *names), line, strict=True)}


def _tables(fitted: Mapping[str, Any]) -> list[Table]:
    lines = pd.DataFrame(
        {
            "figure": [name or "intercept" for name in fitted[what]],
            "coefficient": [f"{value:.3f}" for value in fitted[what].values()],
        }
        | {"line": what}
        for what in ("accuracy", "gain")
    )
    cells = pd.concat([pd.DataFrame(row) for row in lines.to_dict("records")])
    errors = [
        {"corpus, left out": name, "mean error": f"{mean:.3f}", "worst error": f"{worst:.3f}"}
        for name, (mean, worst) in (
            *fitted["errors"].items(),
            ("all", (fitted["error"], fitted["worst"])),
        )
    ]
    shares = {name: f"{fitted[name]:.0%}" for name in ("improved_losers", "rejected_winners")}
    note = (
        f"{fitted['sets']} sets. Improved from an estimated gain of "
        f"{fitted['improved_from']:+.3f}: {shares['improved_losers']} of the losers are; rejected "
        f"below {fitted['reject_below']:+.3f}: {shares['rejected_winners']} of the winners are."
    )
    return [
        Table("estimator-lines", "Lines", note, cells[["line", "figure", "coefficient"]]),
        Table("estimator-errors", "Errors on corpora left out", note, pd.DataFrame(errors)),
    ]
