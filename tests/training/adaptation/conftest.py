"""A small problem of pooled features, for the tests of every method."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import soundfile
import torch

from nnpm.training.adaptation.config import AdaptConfig
from nnpm.training.adaptation.head import AdaptedHead, Source, Target
from nnpm.training.adaptation.methods.method import Batch, Method
from nnpm.training.bundle.files import voice
from nnpm.training.config import HeadConfig
from nnpm.training.network.head import Head


@dataclass
class Problem:
    """30 source clips of four emotions and 20 target clips that lie elsewhere."""

    head: AdaptedHead
    source: Source
    target: Target

    def method(self, kind: type[Method], **section: object) -> Method:
        """The method with these numbers in its section."""
        config = AdaptConfig.model_validate({kind.name: section} if section else {})
        return kind(config, self.source, self.target, self.head)

    def batch(self) -> Batch:
        """All clips as recorded, with a graph of its own."""
        known = self.head.project_source(self.source.pooled)
        target_features = self.head.project_target(self.target.pooled)
        return Batch(
            source_index=torch.arange(len(known)),
            source_projection=known,
            source_logits=self.head.classify(known),
            source_emotion=self.source.emotion,
            target_index=torch.arange(len(target_features)),
            target_projection=target_features,
            target_logits=self.head.classify(target_features),
        )


@pytest.fixture
def problem() -> Problem:
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        head = Head(HeadConfig(projection=8), blocks=(6,), num_emotions=4).eval()
    emotion = torch.arange(30) % 4
    source = Source(normal(4, 6)[emotion] + 0.5 * normal(30, 6), emotion)
    recorded = normal(4, 6)[torch.arange(20) % 4] + 0.5 * normal(20, 6) + 1.0
    target = Target(recorded, recorded + 0.1 * normal(2, 20, 6))
    return Problem(AdaptedHead(head, target, target_statistics=False).eval(), source, target)


@pytest.fixture(scope="session")
def voices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 24 clips without labels."""
    folder = tmp_path_factory.mktemp("voices")
    for number in range(24):
        sound = voice(100.0 + 12 * number, 0.5 + 0.02 * number, seed=number)
        soundfile.write(folder / f"{number:02}.wav", 0.3 * sound, 16_000)
    return folder
