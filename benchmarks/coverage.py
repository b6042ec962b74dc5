"""Coverage against accuracy of the bundled model, and its answers to sounds that are no speech.

    python -m benchmarks.coverage --data DIR [--bundle models/default/2]

The held-out speakers of the source are those that the bundle's card names; they did not train the
network, and they did fit its confidence (the card's own figures are cross-fitted). Writes
benchmarks/results/coverage.md and coverage.csv, which `make charts` draws.
"""

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.provenance import RESULTS, provenance, write
from nnpm.service.inference import bundle as bundles
from nnpm.service.inference.audio.decode import decode
from nnpm.service.inference.audio.waveform import SAMPLE_RATE_HZ, AudioInfo, Recording, Waveform
from nnpm.service.inference.card import CORE_EMOTIONS
from nnpm.service.inference.recognizer import Recognizer
from nnpm.training.benchmark.tables import Table
from nnpm.training.corpora import Utterance, load
from nnpm.training.data import non_speech
from nnpm.training.evaluation import Verdict, expected_calibration_error, judge

COVERAGES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2)
TARGETS = ("emodb", "urdu", "ased", "emotiontts")
SOUNDS = 100


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--bundle", type=Path, default=Path("models/default/2"))
    options = parser.parse_args()
    recognizer = Recognizer(bundles.load(options.bundle))
    curves = {}
    rows = []
    for name, verdicts in groups(recognizer, options.data).items():
        hits = np.array([v.prediction == v.utterance.emotion for v in verdicts])
        confidence = np.array([v.confidence for v in verdicts])
        curves[name] = accuracies(hits, confidence)
        ece = expected_calibration_error(hits, confidence)
        cells = " | ".join(f"{share:.2f}" for share in curves[name])
        rows.append(f"| {name} | {len(hits)} | {ece:.3f} | {cells} |")
    head = " | ".join(f"{share:.0%}" for share in COVERAGES)
    table = [f"| clips | number | ECE | {head} |", "| --- " * (3 + len(COVERAGES)) + "|", *rows]
    voices = [decode(u.path).waveforms[0].samples for u in load("emotiontts", options.data)]
    sounds = ["| sound | abstains | as no speech | as out of domain | surest answer given |"]
    sounds.append("| --- | --- | --- | --- | --- |")
    for name, make in makers(voices).items():
        sounds.append(f"| {name} | {' | '.join(abstention_cells(recognizer, make))} |")
    facts = provenance(f"benchmarks/coverage.py ({options.bundle}, {SOUNDS} sounds of each kind)")
    write("coverage", "\n".join([*table, "", *sounds]), facts)
    points = pd.DataFrame(
        [
            (name, *point)
            for name, shares in curves.items()
            for point in zip(COVERAGES, shares, strict=True)
        ],
        columns=["clips", "coverage", "accuracy"],
    )
    (RESULTS / "coverage.csv").write_text(Table("coverage", "", "", points).csv(facts))


def groups(recognizer: Recognizer, data: Path) -> dict[str, list[Verdict]]:
    """Verdicts on held-out speakers among all emotions, and on test corpora among four."""
    labels = recognizer.bundle.labels
    utterances: list[Utterance] = []
    for corpus in recognizer.bundle.card.training["corpora"]:
        speakers = set(corpus["speakers"]["held_out"])
        utterances += [
            u for u in load(corpus["name"], data) if u.speaker in speakers and u.emotion in labels
        ]
    found = {"source, held-out speakers, all emotions": judge(recognizer, utterances)}
    for name in TARGETS:
        found[name] = judge(recognizer, load(name, data), CORE_EMOTIONS)
    return found


def accuracies(hits: np.ndarray, confidence: np.ndarray) -> list[float]:
    """Accuracy of the surest share of the clips, for each of COVERAGES."""
    order = np.argsort(-confidence, kind="stable")
    return [float(hits[order[: max(1, round(s * len(hits)))]].mean()) for s in COVERAGES]


def makers(voices: Sequence[np.ndarray]) -> dict[str, Callable[[], np.ndarray]]:
    """Sounds by kind; drawn otherwise than those that the threshold was fitted to."""
    rng = np.random.default_rng(20_261)
    length = 3 * SAMPLE_RATE_HZ
    return {
        "silence": lambda: np.zeros(length, np.float32),
        "hiss at -60 dB": lambda: (1e-3 * rng.standard_normal(length)).astype(np.float32),
        "gusts of white to brown noise": lambda: non_speech.noise(rng, float(rng.integers(3))),
        "chords": partial(non_speech.chords, rng),
        "beeps and sweeps": partial(non_speech.tones, rng),
        "eight real voices at once": lambda: non_speech.babble(rng, voices),
    }


def abstention_cells(recognizer: Recognizer, make: Callable[[], np.ndarray]) -> list[str]:
    """Shares of abstentions, and the highest confidence of an answer that was given."""
    info = AudioInfo(3.0, SAMPLE_RATE_HZ, 1, "WAV")
    answers = [recognizer.answer(Recording(info, (Waveform(make()),))) for _ in range(SOUNDS)]
    given = [a.confidence for a in answers if not a.abstained]
    shares = [
        np.mean([a.abstained for a in answers]),
        np.mean(["no_speech" in a.reasons for a in answers]),
        np.mean(["out_of_domain" in a.reasons for a in answers]),
    ]
    return [*(f"{share:.2f}" for share in shares), f"{max(given):.2f}" if given else "none"]


if __name__ == "__main__":
    main()
