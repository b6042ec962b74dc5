"""A small problem of features, for the tests of every method."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import autograd.numpy as anp
import numpy as np
import pytest
import soundfile
from autograd import value_and_grad

from nnpm.service.inference.head import Head
from nnpm.training.adaptation.config import AdaptConfig
from nnpm.training.adaptation.head import Source, Target
from nnpm.training.adaptation.methods.method import Batch, Method
from nnpm.training.adaptation.train import classify, project
from nnpm.training.bundle.parts import voice


@dataclass
class Problem:
    """30 source clips of four emotions and 20 target clips that lie elsewhere."""

    head: Head
    source: Source
    target: Target

    def method(self, kind: type[Method], temperature: float = 1.0, **section: object) -> Method:
        """The method with these numbers in its section."""
        config = AdaptConfig.model_validate({kind.name: section} if section else {})
        rng = np.random.default_rng(0)
        return kind(config, self.source, self.target, self.head, rng, temperature)

    def weights(self, method: Method | None = None) -> dict[str, np.ndarray]:
        """What is trained."""
        own = {} if method is None else method.parameters()
        return {"weight": self.head.weight, "bias": self.head.bias,
                "classes": self.head.classes} | own  # fmt: skip

    def batch(self, weights: Mapping[str, Any] | None = None) -> Batch:
        """All clips as recorded."""
        weights = self.weights() if weights is None else weights
        known = project(weights, self.source.features)
        found = project(weights, self.head.standardise(self.target.pooled))
        return Batch(
            source_index=np.arange(len(known)),
            source_projection=known,
            source_logits=classify(weights, self.head.scale, known),
            source_emotion=self.source.emotion,
            target_index=np.arange(len(found)),
            target_projection=found,
            target_logits=classify(weights, self.head.scale, found),
        )

    def loss(self, method: Method, weights: Mapping[str, Any] | None = None) -> float:
        """The method's loss of all clips."""
        weights = self.weights(method) if weights is None else weights
        return float(method.loss(self.batch(weights), 0.5, weights))

    def slope(self, method: Method, weights: Mapping[str, Any] | None = None):
        """Loss and gradient by autograd."""

        def objective(weights: Mapping[str, Any]) -> Any:
            # a method may leave out what is trained; autograd then wants a number all the same
            nothing = 0.0 * anp.sum(weights["weight"])
            return method.loss(self.batch(weights), 0.5, weights) + nothing

        return value_and_grad(objective)(self.weights(method) if weights is None else weights)

    def descend(self, method: Method, steps: int = 20, rate: float = 0.1) -> list[float]:
        """Losses along plain gradient descent of the head."""
        weights, losses = self.weights(method), []
        for _ in range(steps):
            loss, slope = self.slope(method, weights)
            losses.append(float(loss))
            weights = {n: w - np.float32(rate) * slope[n] for n, w in weights.items()}
        return losses


@pytest.fixture
def problem() -> Problem:
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    classes = normal(4, 8)
    head = Head(
        mean=np.zeros(6, np.float32), deviation=np.ones(6, np.float32), weight=normal(8, 6) / 3,
        bias=normal(8) / 10, classes=classes / np.linalg.norm(classes, axis=1, keepdims=True),
        scale=np.float32(8.0),
    )  # fmt: skip
    emotion = np.arange(30) % 4
    source = Source(normal(4, 6)[emotion] + 0.5 * normal(30, 6), emotion, np.arange(30) % 5)
    recorded = normal(4, 6)[np.arange(20) % 4] + 0.5 * normal(20, 6) + 1
    return Problem(head, source, Target(recorded, recorded + 0.1 * normal(2, 20, 6)))


@pytest.fixture(scope="session")
def voices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 24 clips without labels."""
    folder = tmp_path_factory.mktemp("voices")
    for number in range(24):
        sound = voice(100.0 + 12 * number, 0.5 + 0.02 * number, seed=number)
        soundfile.write(folder / f"{number:02}.wav", 0.3 * sound, 16_000)
    return folder
