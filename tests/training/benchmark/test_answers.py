"""What the benchmark scores is what the service answers."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from nnpm.service.inference.answer import Options
from nnpm.service.inference.audio.decode import decode
from nnpm.service.inference.bundle import Bundle
from nnpm.service.inference.card import CORE_EMOTIONS
from nnpm.service.inference.recognizer import Recognizer
from nnpm.training.adaptation.config import AdaptConfig
from nnpm.training.adaptation.outcome import Base, adapt_target
from nnpm.training.benchmark.cases import Part
from nnpm.training.benchmark.command import Request, benchmark
from nnpm.training.benchmark.features import load_subject, load_target
from nnpm.training.benchmark.results import Results
from nnpm.training.benchmark.trial import answer, score


def test_the_base_answers_as_the_service(bundle: Bundle, data: Path, shared_cache: Path) -> None:
    _, utterances = load_target("abroad", data, bundle, uncurated=True)
    subject = load_subject(bundle, utterances, "recorded", 0, shared_cache)
    base, recognizer = Base.of(bundle), Recognizer(bundle)
    found = answer(base, base.head, base.decision, subject, np.arange(len(utterances)))
    differing = 0
    for number, utterance in enumerate(utterances):
        recording = decode(utterance.path)
        served = recognizer.answer(recording)
        expected = [served.scores[label] for label in bundle.labels]
        # decoded clips are cached in half precision
        np.testing.assert_allclose(found.served.probabilities[number], expected, atol=5e-3)
        differing += bool(found.served.answered[number]) == served.abstained
        forced = recognizer.answer(recording, Options(emotions=CORE_EMOTIONS))
        assert forced.confidence == np.float32(found.forced.confidence[number]).item() or (
            abs(forced.confidence - found.forced.confidence[number]) < 5e-3
        )
    assert differing <= 1  # one may lie at a threshold


def test_a_method_gets_only_the_labels_that_are_named(
    bundle: Bundle, data: Path, shared_cache: Path
) -> None:
    _, utterances = load_target("abroad", data, bundle, uncurated=True)
    subject = load_subject(bundle, utterances, "recorded", 1, shared_cache)
    part = Part(np.array([3, 5, 8, 9]), np.array([3]), np.array([5, 9]))
    target = subject.target(part, 1, bundle.labels)
    assert target.pooled.shape[0] == 4
    assert target.views.shape[:2] == (1, 4)
    assert target.labelled.tolist() == [1, 3]
    assert [bundle.labels[e] for e in target.emotion] == [
        utterances[5].emotion, utterances[9].emotion
    ]  # fmt: skip
    assert np.array_equal(target.pooled, subject.pooled[0, part.adapt])


def test_the_outcome_is_repeatable_and_answers_with_its_decision(
    bundle: Bundle, data: Path, shared_cache: Path
) -> None:
    _, utterances = load_target("abroad", data, bundle, uncurated=True)
    subject = load_subject(bundle, utterances, "recorded", 1, shared_cache)
    target = subject.target(Part(np.arange(60), np.arange(60)), 1, bundle.labels)
    base, config = Base.of(bundle), AdaptConfig(steps=4, refresh_steps=2)
    first, second = (adapt_target(base, target, "nnpm", config, 0) for _ in range(2))
    assert np.array_equal(first.head.weight, second.head.weight)
    again = base.serve(target.pooled, first.head, first.decision)
    assert np.array_equal(again.probabilities, first.after.probabilities)
    assert first.after.answered.sum() >= first.before.answered.sum()


def test_clips_without_speech_are_not_answered(
    bundle: Bundle, data: Path, shared_cache: Path
) -> None:
    _, utterances = load_target("abroad", data, bundle, uncurated=True)
    subject = load_subject(bundle, utterances, "recorded", 0, shared_cache)
    silent = replace(subject, has_speech=np.zeros(len(utterances), np.bool_))
    base = Base.of(bundle)
    core = np.flatnonzero([u.emotion in CORE_EMOTIONS for u in utterances])
    found = answer(base, base.head, base.decision, silent, core)
    figures = score([utterances[place] for place in core], [found], bundle.labels)
    assert (figures["answered"], figures["right"]) == (0.0, 0)
    assert figures["accuracy_answered"] is None


def test_labels_help_the_figures_only_of_other_clips(request_of: Request, monkeypatch) -> None:
    from nnpm.training.benchmark import cases

    monkeypatch.setattr(cases, "LABELLED", (0, 20))
    benchmark(replace(request_of, tables=("labels",), methods=("nnpm",)))
    none, twenty = Results(request_of.out / "results.jsonl").read()
    assert none["clips"] == twenty["clips"] == 72 - 20
    assert none["adapted_clips"] == twenty["adapted_clips"] == [72]
    assert "labelled_accuracy" not in none["evidence"][0]
    assert "labelled_accuracy" in twenty["evidence"][0]
