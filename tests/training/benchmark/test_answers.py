"""What the benchmark scores is what the service would answer."""

import numpy as np
import torch

from nnpm.service.inference.bundle import Bundle
from nnpm.service.inference.recognizer import Recognizer
from nnpm.training.adaptation.config import AdaptConfig
from nnpm.training.adaptation.features import FeatureViews
from nnpm.training.adaptation.head import AdaptedHead, Source, Target
from nnpm.training.adaptation.publish import Adapted, publish
from nnpm.training.adaptation.report import AdaptationReport, Clips
from nnpm.training.adaptation.report import Base as Parent
from nnpm.training.adaptation.train import adapt_head
from nnpm.training.benchmark.networks import Base
from nnpm.training.benchmark.trial import answer
from nnpm.training.bundle.files import restore_network, voice

VOICES = [voice(100.0 + 9 * number, 0.7, seed=number) for number in range(20)]


def report() -> AdaptationReport:
    return AdaptationReport(
        method="adabn",
        seed=0,
        language="sw",
        base=Parent(version="1", digest="0" * 64),
        clips=Clips(accepted=20, skipped={}, examples={}),
        windows=20,
        verdict="improved",
        reasons=(),
        estimated_accuracy=None,
        evidence={},
        seconds={},
        bundle=None,
    )


def test_an_adapted_head_answers_as_its_bundle(bundle: Bundle, tmp_path) -> None:
    network, memory = restore_network(bundle), bundle.memory()
    decision = bundle.card.decision.model_copy(update={"vote_weight": 0.4, "temperature": 1.7})
    base = Base(network, memory, decision, "")
    extract = FeatureViews(network, num_views=0, seed=0)
    pooled = torch.cat([extract(sound) for sound in VOICES])
    target, config = Target(pooled, torch.zeros(0, *pooled.shape)), AdaptConfig(steps=3)
    head = adapt_head(network.head, Source.from_memory(memory), target, "adabn", config, 0)
    ours = answer(base, head, decision, pooled)

    adapted = Adapted(network, memory, head, decision)
    published = publish(tmp_path / "adapted", bundle, adapted, report(), config, VOICES[:2])
    recognizer = Recognizer(published)
    for row, sound in enumerate(VOICES):
        probabilities, embedding, projection = recognizer.score(sound)
        np.testing.assert_allclose(ours.probabilities[row], probabilities[0], atol=2e-3)
        np.testing.assert_allclose(ours.projection[row], projection[0], atol=1e-3)
        far = recognizer.memory.out_of_domain(embedding)[0] > decision.out_of_domain
        assert ours.out_of_domain[row] == far


def test_an_unmoved_head_answers_as_the_base(bundle: Bundle) -> None:
    network = restore_network(bundle)
    base = Base(network, bundle.memory(), bundle.card.decision, "")
    extract = FeatureViews(network, num_views=0, seed=0)
    pooled = torch.cat([extract(sound) for sound in VOICES])
    target = Target(pooled, torch.zeros(0, *pooled.shape))
    head = AdaptedHead(network.head, target, target_statistics=False).eval()
    ours = answer(base, head, base.decision, pooled)
    recognizer = Recognizer(bundle)
    theirs = np.concatenate([recognizer.score(sound)[0] for sound in VOICES])
    np.testing.assert_allclose(ours.probabilities, theirs, atol=1e-4)
