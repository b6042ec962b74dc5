"""What the benchmark scores is what the service would answer."""

import numpy as np

from nnpm.service.inference.bundle import Bundle
from nnpm.service.inference.recognizer import Recognizer
from nnpm.training.adaptation.config import AdaptConfig
from nnpm.training.adaptation.features import Encoder
from nnpm.training.adaptation.head import Source, Target
from nnpm.training.adaptation.publish import Adapted, publish
from nnpm.training.adaptation.report import AdaptationReport, Change, Clips, EmotionChange
from nnpm.training.adaptation.report import Base as Parent
from nnpm.training.adaptation.train import adapt_head
from nnpm.training.benchmark.networks import Base
from nnpm.training.benchmark.trial import answer
from nnpm.training.bundle.parts import voice

VOICES = [voice(100.0 + 9 * number, 0.7, seed=number) for number in range(20)]


def report() -> AdaptationReport:
    return AdaptationReport(
        method="adabn",
        seed=0,
        language="sw",
        base=Parent(version="1", digest="0" * 64),
        clips=Clips(accepted=20, skipped={}, examples={}),
        windows=20,
        answered_share=Change(before=1.0, after=1.0),
        confidence=Change(before=0.5, after=0.5),
        emotions=EmotionChange(before={}, after={}),
        changed=0,
        verdict="improved",
        reasons=(),
        estimated_accuracy=None,
        evidence={},
        seconds={},
        bundle=None,
    )


def pooled(bundle: Bundle) -> np.ndarray:
    encoder = Encoder(bundle.path / "model.onnx", num_views=0, seed=0)
    return np.concatenate([encoder(sound) for sound in VOICES])


def test_an_adapted_head_answers_as_its_bundle(base: Bundle, tmp_path) -> None:
    decision = base.card.decision.model_copy(update={"vote_weight": 0.4, "temperature": 1.7})
    network, clips = Base.of(base, ""), pooled(base)
    target, config = Target(clips, clips[None][:0]), AdaptConfig(steps=3)
    head = adapt_head(network.head, Source.from_memory(network.memory), target, "adabn", config, 0)
    ours = answer(network, head, decision, clips)

    adapted = Adapted(head, decision)
    recognizer = Recognizer(publish(tmp_path / "adapted", base, adapted, report(), config))
    for row, sound in enumerate(VOICES):
        theirs = recognizer.score(sound)
        np.testing.assert_allclose(ours.probabilities[row], theirs.probabilities, atol=1e-4)
        assert ours.out_of_domain[row] == (theirs.out_of_domain > decision.out_of_domain)


def test_an_unmoved_head_answers_as_the_base(base: Bundle) -> None:
    network = Base.of(base, "")
    ours = answer(network, network.head, network.decision, pooled(base))
    recognizer = Recognizer(base)
    theirs = [recognizer.score(sound).probabilities for sound in VOICES]
    np.testing.assert_allclose(ours.probabilities, theirs, atol=1e-4)
