"""``nnpm evaluate``: score a bundle on a labelled corpus, with the recognizer of the service."""

import csv
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from ..service.files import replacing, require_place
from ..service.inference import bundle as bundles
from ..service.inference.answer import Options
from ..service.inference.audio.decode import decode
from ..service.inference.errors import AudioError, printable
from ..service.inference.recognizer import Recognizer
from .corpora import Utterance, load_folder
from .corpora.file_names import absolute
from .errors import TrainingError

Ints = NDArray[np.int64]
Floats = NDArray[np.floating]


def evaluate(
    bundle: Path, data: Path, emotions: Sequence[str] | None, predictions: Path | None
) -> dict[str, Any]:
    """Score a bundle on one corpus.

    Args:
        bundle: its folder.
        data: folder of the corpus.
        emotions: restricts both the clips and the possible answers; None takes all clips, and the
            answers in the bundle's card.
        predictions: CSV file to write, one row per clip; None writes none.

    Returns:
        The figures, as from :func:`report`.

    Raises:
        BundleError: if the bundle cannot be read.
        CorpusError: if the corpus cannot be read.
        TrainingError: as from :func:`judge`.
        OSError: if the predictions cannot be written.
    """
    if predictions:
        require_place(predictions)
    recognizer = Recognizer(bundles.load(bundle))
    verdicts = judge(recognizer, load_folder(data), emotions)
    if predictions:
        write_predictions(verdicts, data, predictions)
    return report(verdicts, emotions or recognizer.bundle.labels)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer on one clip.

    Attributes:
        utterance: the clip and its true emotion.
        prediction: the emotion with the highest score, even if the bundle abstained; None if the
            clip cannot be decoded.
        confidence: in [0, 1]; of a clip that cannot be decoded, that of a guess.
        scores: probability by emotion; empty if the clip cannot be decoded.
        abstained: whether the bundle gave no answer.
    """

    utterance: Utterance
    prediction: str | None
    confidence: float
    scores: dict[str, float]
    abstained: bool


def judge(
    recognizer: Recognizer,
    utterances: Sequence[Utterance],
    emotions: Sequence[str] | None = None,
    *,
    workers: int = 2,
) -> list[Verdict]:
    """Answer every clip.

    Args:
        recognizer: the bundle.
        utterances: labelled clips.
        emotions: restricts both the clips and the possible answers; None takes all clips, and the
            answers in the bundle's card: a clip of another emotion counts as wrong.
        workers: threads.

    Returns:
        One verdict per clip, in the order of the utterances.

    Raises:
        TrainingError: if no clip is left, or a clip has an emotion that is no label of the bundle.
    """
    allowed = tuple(dict.fromkeys(emotions or recognizer.bundle.card.answers))
    chosen = [u for u in utterances if not emotions or u.emotion in allowed]
    unknown = sorted({*(u.emotion for u in chosen), *allowed} - set(recognizer.bundle.labels))
    if unknown:
        raise TrainingError(
            f"the bundle cannot answer {', '.join(unknown)}, only "
            f"{', '.join(recognizer.bundle.labels)}: choose among these with --emotions"
        )
    if not chosen:
        raise TrainingError(
            f"0 of the {len(utterances)} clips have the emotion {' or '.join(allowed)}"
        )
    options = Options(emotions=allowed)
    with ThreadPoolExecutor(workers) as pool:
        answers = pool.map(lambda u: _judge_one(recognizer, u, options), chosen)
        bar = tqdm(answers, desc="evaluate", total=len(chosen), unit="clip", disable=None)
        return list(bar)


def _judge_one(recognizer: Recognizer, utterance: Utterance, options: Options) -> Verdict:
    try:
        answer = recognizer.answer(decode(utterance.path), options)
    except AudioError:
        allowed = options.emotions or recognizer.bundle.labels
        return Verdict(utterance, None, 1.0 / len(allowed), {}, abstained=True)
    best = max(answer.scores, key=answer.scores.__getitem__)
    return Verdict(utterance, best, answer.confidence, answer.scores, answer.abstained)


def report(verdicts: Sequence[Verdict], emotions: Sequence[str]) -> dict[str, Any]:
    """The figures of ``nnpm evaluate``.

    WA, UAR, F1 and ECE count the best-scored answer on every clip, without abstention; a clip that
    cannot be decoded counts as wrong.

    Args:
        verdicts: one per clip.
        emotions: the possible answers, in the order of the confusion matrix.

    Returns:
        The fields that docs/research/training.md lists. In ``per_speaker`` a speaker is
        ``corpus/speaker`` if there are several corpora: one name in two corpora is two people.
    """
    labels = list(dict.fromkeys(emotions))
    truth = np.array([labels.index(v.utterance.emotion) for v in verdicts])
    prediction = np.array(
        [len(labels) if v.prediction is None else labels.index(v.prediction) for v in verdicts]
    )
    confidence = np.array([v.confidence for v in verdicts])
    abstained = np.array([v.abstained for v in verdicts])
    # A clip that cannot be decoded is in no column; "undecodable" counts them.
    size = len(labels)
    confusion = confusion_matrix(truth, prediction, size + 1)[:size, :size]
    by_class = recalls(truth, prediction)
    speakers: dict[str, list[bool]] = defaultdict(list)
    several = len({verdict.utterance.corpus for verdict in verdicts}) > 1
    for verdict in verdicts:
        spoken = verdict.utterance
        name = f"{spoken.corpus}/{spoken.speaker}" if several else spoken.speaker
        speakers[name].append(verdict.prediction == spoken.emotion)
    answered = ~abstained
    return {
        "clips": len(verdicts),
        "undecodable": int(np.sum(prediction == len(labels))),
        "wa": accuracy(truth, prediction),
        "uar": unweighted_average_recall(truth, prediction),
        "macro_f1": macro_f1(truth, prediction),
        "ece": expected_calibration_error(truth == prediction, confidence),
        "coverage": float(answered.mean()),
        "wa_answered": (
            accuracy(truth[answered], prediction[answered]) if answered.any() else None
        ),
        "labels": labels,
        "confusion": confusion.tolist(),
        "per_class": {
            labels[index]: {"clips": int(np.sum(truth == index)), "recall": recall}
            for index, recall in by_class.items()
        },
        "per_speaker": {
            speaker: {"clips": len(hits), "wa": float(np.mean(hits))}
            for speaker, hits in sorted(speakers.items())
        },
    }


def write_predictions(verdicts: Sequence[Verdict], root: Path, path: Path) -> None:
    """Write path (from ``root``), truth, prediction and scores of every clip as CSV."""
    labels = sorted({label for verdict in verdicts for label in verdict.scores})
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "truth", "prediction", *labels])
        for verdict in verdicts:
            scores = [f"{verdict.scores.get(label, 0.0):.6f}" for label in labels]
            place = printable(verdict.utterance.path.relative_to(absolute(root)).as_posix())
            writer.writerow([place, verdict.utterance.emotion, verdict.prediction or "", *scores])


def confusion_matrix(truth: Ints, prediction: Ints, num_classes: int) -> Ints:
    """Count clips by truth (rows) and prediction (columns).

    Examples:
        >>> confusion_matrix(np.array([0, 0, 1]), np.array([0, 1, 1]), 2).tolist()
        [[1, 1], [0, 1]]
    """
    pairs = np.asarray(truth) * num_classes + np.asarray(prediction)
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def accuracy(truth: Ints, prediction: Ints) -> float:
    """Share of clips with the right answer (WA, weighted accuracy)."""
    return float(np.mean(np.asarray(truth) == np.asarray(prediction)))


def recalls(truth: Ints, prediction: Ints) -> dict[int, float]:
    """Recall of each class that occurs in ``truth``."""
    truth, prediction = np.asarray(truth), np.asarray(prediction)
    return {int(c): float(np.mean(prediction[truth == c] == c)) for c in np.unique(truth)}


def unweighted_average_recall(truth: Ints, prediction: Ints) -> float:
    """Mean recall over the classes that occur in ``truth`` (UAR).

    Examples:
        >>> unweighted_average_recall(np.array([0, 0, 0, 1]), np.array([0, 0, 0, 0]))
        0.5
    """
    return float(np.mean(list(recalls(truth, prediction).values())))


def macro_f1(truth: Ints, prediction: Ints) -> float:
    """Mean F1 over the classes that occur in ``truth``.

    Examples:
        >>> macro_f1(np.array([0, 0, 1]), np.array([0, 2, 1])).__round__(3)
        0.833
    """
    truth, prediction = np.asarray(truth), np.asarray(prediction)
    scores = []
    for label in np.unique(truth):
        hits = np.sum((truth == label) & (prediction == label))
        scores.append(2.0 * hits / (np.sum(truth == label) + np.sum(prediction == label)))
    return float(np.mean(scores))


def expected_calibration_error(
    correct: NDArray[np.bool_], confidence: Floats, num_bins: int = 15
) -> float:
    """Mean gap between confidence and accuracy over equal-width bins, weighted by clips (ECE).

    References:
        Guo et al., *On Calibration of Modern Neural Networks*, arXiv 1706.04599.

    Args:
        correct: shape ``(clips,)``.
        confidence: in [0, 1], shape ``(clips,)``.
        num_bins: bins over [0, 1].

    Examples:
        >>> expected_calibration_error(np.array([True, False]), np.array([0.9, 0.9]))
        0.4
    """
    confidence = np.asarray(confidence, dtype=np.float64)
    bins = np.minimum((confidence * num_bins).astype(int), num_bins - 1)
    gap = 0.0
    for index in np.unique(bins):
        inside = bins == index
        gap += inside.mean() * abs(np.mean(correct[inside]) - confidence[inside].mean())
    return round(float(gap), 12)


Counts = Sequence[Sequence[int]]
"""A confusion matrix: truth by row, answer by column."""

_BOOTSTRAP_DRAWS = 2000
_BOOTSTRAP_LEVEL = 0.95


def bootstrap_interval(
    seeds: Sequence[Mapping[str, Counts]],
) -> tuple[tuple[float, float], tuple[float, float]] | None:
    """Confidence intervals of UAR and WA over speakers, by bootstrap; each is the mean over seeds.

    Args:
        seeds: for each seed the confusion matrix by speaker, of the same speakers.

    Returns:
        Lower and upper limit (95 %) of UAR, then of WA; None for fewer than two speakers.
    """
    names = sorted(seeds[0])
    if len(names) < 2 or any(sorted(seed) != names for seed in seeds):
        return None
    counts = np.array([[seed[name] for name in names] for seed in seeds], np.float64)
    draws = np.random.default_rng(0).multinomial(
        len(names), np.full(len(names), 1 / len(names)), _BOOTSTRAP_DRAWS
    )
    # seed, draw, truth, answer
    drawn = np.einsum("ds,nsij->ndij", draws, counts)
    hits, clips = np.einsum("ndii->ndi", drawn), drawn.sum(3)
    by_class = np.divide(hits, clips, out=np.full_like(hits, np.nan), where=clips > 0)
    uar = np.nanmean(by_class, axis=2).mean(0)
    wa = (hits.sum(2) / clips.sum(2)).mean(0)
    tails = [(1 - _BOOTSTRAP_LEVEL) / 2, (1 + _BOOTSTRAP_LEVEL) / 2]
    low, high = np.quantile(uar, tails)
    below, above = np.quantile(wa, tails)
    return (float(low), float(high)), (float(below), float(above))
