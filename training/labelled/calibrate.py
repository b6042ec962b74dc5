"""``nnpm calibrate`` and evaluations: measure a bundle on labelled clips, and fit its decision.

A figure that a calibration would give is taken from clips that it was not fitted to, in turn.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import autograd.numpy as anp
import numpy as np
import onnx
from autograd import hessian, value_and_grad
from numpy.typing import NDArray

from ... import __version__
from ...service.inference import bundle as bundles
from ...service.inference.bundle import SEAL, Bundle
from ...service.inference.card import Decision
from ...service.inference.errors import printable
from ...service.jobs.folder import EvaluationTask
from ...service.jobs.labels import MANIFEST, MAX_MANIFEST_BYTES, read_labels
from ..bundle.answer import attach_answer
from ..bundle.parts import probe_file, timestamp
from ..evaluation import (
    accuracy,
    expected_calibration_error,
    recalls,
    unweighted_average_recall,
)
from .clips import Answerer, Answers, Clips, Ints, open_base, read_clips

MIN_LABELS = 20
"""With fewer labelled clips a calibration says little."""

FULL_LABELS = 40
"""With fewer labelled clips the temperature alone is fitted; from here on, a bias per emotion."""

_FOLDS = 5
_DRAWS = 1000  # of the bootstrap
_PRIOR_CLIPS = 10.0  # that speak for no change
_NEWTON_STEPS = 30
_TINY = 1e-12
_EXAMPLES = 5


def fit(answerer: Answerer, decision: Decision, clips: Clips) -> Decision:
    """Fit temperatures, biases and the threshold of a decision to labelled clips.

    One factor multiplies both temperatures; from :data:`FULL_LABELS` clips on, each emotion also
    has a bias, in the classifier and in the memory's vote. The threshold keeps the number of these
    clips that are answered.

    References:
        Guo et al., arXiv 1706.04599: temperature scaling; Alexandari et al., arXiv 1901.06852: with
        a bias. Here both are drawn to no change, with the weight of ten clips.

    Args:
        answerer: of the bundle.
        decision: of its card.
        clips: labelled; those that cannot be decoded are left out.
    """
    seen = np.unique(clips.clip)
    before = answerer(clips, decision)
    logits, votes = _scores(answerer, decision, clips)
    allowed = answerer.allowed
    columns = {emotion: index for index, emotion in enumerate(allowed)}
    chosen = np.array([clip for clip in seen if int(clips.truth[clip]) in columns], np.int64)
    truth = np.array([columns[int(clips.truth[clip])] for clip in chosen])
    with_bias = len(chosen) >= FULL_LABELS
    shares = np.zeros((len(clips), len(clips.clip)))
    shares[clips.clip, np.arange(len(clips.clip))] = clips.weight
    shares = shares[chosen]
    weight = decision.vote_weight

    def cost(theta: Any) -> Any:
        factor = anp.exp(theta[0])
        bias = theta[1:] if with_bias else anp.zeros(len(allowed))
        own = _softmax(logits[0] / factor + logits[1] + bias)
        vote = _softmax(votes / factor + bias)
        mixed = anp.dot(shares, (1 - weight) * own + weight * vote)
        mixed = mixed / anp.sum(mixed, axis=1, keepdims=True)
        likelihood = anp.sum(anp.log(mixed[anp.arange(len(truth)), truth] + _TINY))
        return _PRIOR_CLIPS * (theta[0] ** 2 + anp.sum(theta[1:] ** 2)) - likelihood

    theta = _minimise(cost, np.zeros(1 + with_bias * len(allowed)))
    fitted = _moved(decision, theta, answerer)
    return _keep_answering(fitted, answerer(clips, fitted), int(before.answered.sum()))


def _scores(
    answerer: Answerer, decision: Decision, clips: Clips
) -> tuple[tuple[NDArray[Any], NDArray[Any]], NDArray[Any]]:
    """Logits over the temperature, their bias, and log votes, of the default emotions."""
    allowed = answerer.allowed
    projection = answerer.head.project(answerer.head.standardise(clips.embedding))
    logits = answerer.head.classify(projection)[:, allowed] / decision.temperature
    bias = np.array(decision.logit_bias or np.zeros(answerer.num_emotions))[allowed]
    votes = answerer.prototypes.vote(projection, decision, answerer.num_emotions)[:, allowed]
    return (logits.astype(np.float64), bias), np.log(np.maximum(votes.astype(np.float64), 1e-30))


def _softmax(values: Any) -> Any:
    exponent = anp.exp(values - anp.max(values, axis=1, keepdims=True))
    return exponent / anp.sum(exponent, axis=1, keepdims=True)


def _minimise(cost: Callable[[Any], Any], start: NDArray[np.float64]) -> NDArray[np.float64]:
    """Newton's method with a ridge that grows until a step goes down."""
    slope_of, curve_of = value_and_grad(cost), hessian(cost)
    theta, ridge = start, 1e-3
    value, slope = slope_of(theta)
    for _ in range(_NEWTON_STEPS):
        curve = curve_of(theta)
        while ridge < 1e9:
            step = np.linalg.solve(curve + ridge * np.eye(len(theta)), slope)
            tried = theta - np.clip(step, -1.0, 1.0)
            lower, flatter = slope_of(tried)
            if lower <= value:
                break
            ridge *= 10
        if not lower < value - 1e-7 * abs(value):
            break
        theta, value, slope, ridge = tried, lower, flatter, max(1e-3, ridge / 10)
    return theta


def _moved(decision: Decision, theta: NDArray[np.float64], answerer: Answerer) -> Decision:
    factor = float(np.exp(theta[0]))
    temperature = float(np.clip(decision.temperature * factor, 1e-3, 1e3))
    vote_temperature = float(np.clip(decision.vote_temperature * factor, 1e-3, 1e3))
    update: dict[str, Any] = {"temperature": temperature, "vote_temperature": vote_temperature}
    if len(theta) > 1:
        bias = np.zeros(answerer.num_emotions)
        bias[answerer.allowed] = theta[1:]
        old = np.array(decision.logit_bias or np.zeros(len(bias)))
        old_vote = np.array(decision.vote_bias or np.zeros(len(bias)))
        update["logit_bias"] = tuple((old + bias).round(6).tolist())
        update["vote_bias"] = tuple((old_vote + bias * vote_temperature).round(6).tolist())
    return decision.model_copy(update=update)


def _keep_answering(decision: Decision, found: Answers, wanted: int) -> Decision:
    """The threshold at which as many of these clips are answered as before."""
    near = (found.out_of_domain <= decision.out_of_domain) & (
        found.prediction < found.probabilities.shape[1]
    )
    sure = np.sort(found.probabilities.max(1)[near])[::-1]
    if not wanted or len(sure) < wanted:
        return decision
    following = float(sure[wanted]) if len(sure) > wanted else 0.0
    threshold = min(float(sure[wanted - 1]) - 1e-4, (float(sure[wanted - 1]) + following) / 2)
    return decision.model_copy(update={"low_confidence": max(0.0, threshold)})


def cross_fitted(answerer: Answerer, decision: Decision, clips: Clips) -> Answers:
    """Answers to each clip under a decision that was fitted to others."""
    order = np.random.default_rng(0).permutation(len(clips))
    parts: list[tuple[Ints, Answers]] = []
    for fold in range(_FOLDS):
        own, others = order[fold::_FOLDS], np.delete(order, np.s_[fold::_FOLDS])
        fitted = fit(answerer, decision, clips.of(others))
        parts.append((own, answerer(clips.of(own), fitted)))
    place = np.argsort(np.concatenate([own for own, _ in parts]))
    fields = zip(*(answers for _, answers in parts), strict=True)
    return Answers(*(np.concatenate(field)[place] for field in fields))


def figures(answers: Answers, truth: Ints) -> dict[str, dict[str, float]]:
    """WA, UAR, ECE and answered share, each with its 95 % interval by bootstrap over clips."""
    right, sure = answers.prediction == truth, answers.probabilities.max(1)
    draws = np.random.default_rng(0).integers(len(truth), size=(_DRAWS, len(truth)))

    def of(chosen: Any) -> dict[str, float]:
        return {
            "wa": accuracy(truth[chosen], answers.prediction[chosen]),
            "uar": unweighted_average_recall(truth[chosen], answers.prediction[chosen]),
            "ece": expected_calibration_error(right[chosen], sure[chosen]),
            "answered_share": float(answers.answered[chosen].mean()),
        }

    drawn = [of(one) for one in draws]
    found = {}
    for name, value in of(slice(None)).items():
        low, high = np.quantile([one[name] for one in drawn], [0.025, 0.975])
        found[name] = {"value": value, "low": float(low), "high": float(high)}
    return found


def evaluate_clips(bundle: Bundle, clips: Clips) -> tuple[dict[str, Any], Decision | None]:
    """Measure a bundle on labelled clips, and what recalibration on them would change.

    Returns:
        The figures, and the decision fitted to all clips; None with fewer than
        :data:`MIN_LABELS` that can be decoded.
    """
    answerer, decision = Answerer(bundle), bundle.card.decision
    answers = answerer(clips, decision)
    usable = len(np.unique(clips.clip))
    report: dict[str, Any] = {
        "undecodable": len(clips.undecodable),
        **figures(answers, clips.truth),
        "labels": list(bundle.labels),
        "calibrated": bundle.card.calibrated,
        "per_class": {
            bundle.labels[emotion]: {"clips": int((clips.truth == emotion).sum()), "recall": recall}
            for emotion, recall in recalls(clips.truth, answers.prediction).items()
        },
        "recalibrated": None,
        "reason": "",
    }
    if usable < MIN_LABELS:
        report["reason"] = (
            f"{usable} labelled clips can be decoded; a calibration needs at least {MIN_LABELS}."
        )
        return report, None
    fitted = fit(answerer, decision, clips)
    report["recalibrated"] = {
        **figures(cross_fitted(answerer, decision, clips), clips.truth),
        "temperature": fitted.temperature,
        "low_confidence": fitted.low_confidence,
        "logit_bias": list(fitted.logit_bias),
    }
    return report, fitted


Progress = Callable[[str, int, int], None]
"""Called with the stage, the units done and all units of the stage."""


def evaluate(task: EvaluationTask, progress: Progress = lambda *_: None) -> dict[str, Any]:
    """Measure a bundle on a labelled folder, and write a recalibrated one if asked for.

    Args:
        task: the bundle, the folder with its metadata.csv, and where a new bundle goes.
        progress: called as the work goes on.

    Returns:
        The report: figures of the bundle, and with recalibration; ``bundle`` is None unless one was
        written.

    Raises:
        ParameterError: if metadata.csv cannot be used.
        TrainingError: if the bundle is of the first generation, or does not know an emotion.
        BundleError: if the bundle cannot be read, or the new one not be written.
    """
    base = open_base(task.bundle)
    path = task.target / MANIFEST
    labels = read_labels(path, task.target, max_bytes=MAX_MANIFEST_BYTES)
    clips = read_clips(
        base,
        [task.target / name for name in labels],
        list(labels.values()),
        threads=task.threads,
        on_clip=lambda done, total: progress("listen", done, total),
    )
    progress("judge", 0, 1)
    found, decision = evaluate_clips(base, clips)
    names = list(labels)
    bad = [printable(names[index]) for index in clips.undecodable]
    report = {
        "clips": {
            "accepted": len(labels),
            "skipped": {},
            "examples": {"undecodable": bad[:_EXAMPLES]} if bad else {},
            "passed_over": {},
        },
        "verdict": None,
        "estimated_accuracy": None,
        **found,
        "bundle": None,
    }
    if task.out is not None and decision is not None:
        publish(task.out, base, decision, report)
        report["bundle"] = printable(task.out)
    return report


def publish(out: Path, base: Bundle, decision: Decision, report: dict[str, Any]) -> Bundle:
    """Write a bundle that differs from its base in the decision alone.

    Raises:
        BundleError: if ``out`` exists or cannot be written.
    """
    measured = {name: report[name] for name in ("wa", "uar", "ece", "recalibrated")}
    card = base.card.model_copy(
        update={
            "created_at": timestamp(),
            "nnpm_version": __version__,
            "decision": decision,
            "calibrated": True,
            "parent": (base.path / SEAL).read_text("ascii")[:64],
            "metrics": {
                **base.card.metrics,
                "calibration": {"clips": report["clips"]["accepted"], **measured},
            },
            "files": {},
        }
    )
    files = {name: (base.path / name).read_bytes() for name in base.card.files}
    stored = onnx.load_from_string(files["model.onnx"])
    metadata = {entry.key: entry.value for entry in stored.metadata_props}
    model = attach_answer(stored, base.head(), base.memory(), decision, base.labels, metadata)
    files["model.onnx"] = model.SerializeToString(deterministic=True)
    files["probe.npz"] = probe_file(model)
    files["README.md"] += _NOTE.format(clips=report["clips"]["accepted"], **_shown(report)).encode()
    return bundles.save(out, card, files)


_NOTE = """
## Calibration

Its confidence was fitted to {clips} labelled clips. The gap between confidence and accuracy (ECE)
was {before} before; it is {after} on clips that the calibration was not fitted to, in turn.
Encoder, head and memory are those of the base.
"""


def _shown(report: dict[str, Any]) -> dict[str, str]:
    return {
        "before": f"{report['ece']['value']:.3f}",
        "after": f"{report['recalibrated']['ece']['value']:.3f}",
    }


def describe(report: dict[str, Any]) -> str:
    """The report as lines of text."""
    lines = [f"clips      {report['clips']['accepted']}, {report['undecodable']} undecodable", ""]
    lines.append(f"{'':15} {'now':>23} {'recalibrated':>23}")
    for name in ("wa", "uar", "ece", "answered_share"):
        after = (report["recalibrated"] or {}).get(name)
        lines.append(f"{name:15} {_interval(report[name]):>23} {_interval(after):>23}")
    if report["reason"]:
        lines += ["", report["reason"]]
    return "\n".join([*lines, "", f"bundle     {report['bundle'] or 'not written'}"])


def _interval(found: dict[str, float] | None) -> str:
    if found is None:
        return "-"
    return f"{found['value']:.3f} ({found['low']:.3f} - {found['high']:.3f})"
