"""The parts of an export; a whole one is in test_end_to_end.py."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from nnpm.service.inference.head import Head
from nnpm.training.bundle.export import _command, choose_slots, head_and_memory
from nnpm.training.config import DEFAULT, Config, EncoderConfig, TrainConfig, load
from nnpm.training.corpora import Utterance
from nnpm.training.source.run import Request

LABELS = ("angry", "sad")


def clip(corpus: str, speaker: str, emotion: str) -> Utterance:
    return Utterance(Path("/clip.wav"), corpus, speaker, "en", emotion)


def test_slots_are_even_over_corpora_emotions_and_speakers() -> None:
    utterances = [
        *(clip("big", "loud", "angry") for _ in range(500)),
        *(clip("big", "quiet", "angry") for _ in range(6)),
        *(clip("big", "loud", "sad") for _ in range(100)),
        *(clip("small", "anna", "sad") for _ in range(10)),
    ]
    chosen = choose_slots(utterances, 40)
    assert chosen == sorted(set(chosen))
    cells = Counter((utterances[i].corpus, utterances[i].emotion) for i in chosen)
    assert cells == {("big", "angry"): 15, ("big", "sad"): 15, ("small", "sad"): 10}
    speakers = Counter(utterances[i].speaker for i in chosen if utterances[i].emotion == "angry")
    assert speakers == {"quiet": 6, "loud": 9}
    assert choose_slots(utterances, 40) == chosen
    assert choose_slots(utterances[:7], 40) == list(range(7))


def test_each_corpus_is_standardised_by_its_own_statistics(rng: np.random.Generator) -> None:
    train = [clip("one", f"s{n % 3}", LABELS[n % 2]) for n in range(30)]
    train += [clip("two", f"s{n % 5}", LABELS[n % 2]) for n in range(20)]
    embedding = rng.standard_normal((50, 6)).astype(np.float32)
    embedding[:30] = 3 * embedding[:30] + 7
    embedding[:, 5] = 1.0  # a feature that is always the same
    trained = Head(
        mean=np.zeros(6, np.float32), deviation=np.ones(6, np.float32),
        weight=np.ones((2, 6), np.float32), bias=np.zeros(2, np.float32),
        classes=np.eye(2, dtype=np.float32), scale=np.float32(9.0),
    )  # fmt: skip
    head, memory = head_and_memory(trained, train, embedding, LABELS)
    means = np.stack([embedding[:30].mean(0), embedding[30:].mean(0)])
    deviations = np.maximum(np.stack([embedding[:30].std(0), embedding[30:].std(0)]), 1e-4)
    np.testing.assert_allclose(head.mean, means.mean(0), rtol=1e-5)
    np.testing.assert_allclose(head.deviation, np.sqrt(deviations[0] * deviations[1]), rtol=1e-4)
    assert head.scale == 9.0
    which = np.arange(50) >= 30
    expected = (embedding - means[which * 1]) / deviations[which * 1]
    np.testing.assert_allclose(memory.features, expected, atol=1 / 64 + 1e-5)
    assert (memory.features * 32 == np.round(memory.features * 32)).all()  # as it is stored
    assert memory.emotion.tolist() == [n % 2 for n in range(30)] + [n % 2 for n in range(20)]
    assert memory.corpus == ("one",) * 30 + ("two",) * 20
    assert memory.speaker[:4] == ("s0", "s1", "s2", "s0")


def request(config: Config, *corpora: str) -> Request:
    return Request(corpora=corpora or ("one",), data=Path("/x"), seed=3, config=config)


def test_the_card_tells_the_exact_command() -> None:
    default = load(DEFAULT)
    assert _command(request(default, "one", "my own"), "int8") == (
        "nnpm train --corpora one 'my own' --data DIR --seed 3 --out RUN && "
        "nnpm export RUN --out BUNDLE"
    )
    assert _command(request(default), "fp32").endswith(" --out BUNDLE --precision fp32")
    other = Config(encoder=default.encoder, train=TrainConfig(steps=1))
    assert " --config CONFIG " in _command(request(other), "int8")


@pytest.mark.parametrize("source", ["/home/somebody/whisper", "openai/whisper-base"])
def test_where_the_encoder_lay_is_not_part_of_the_command(source: str) -> None:
    encoder = EncoderConfig(source=source, layers=2)
    changed = load(DEFAULT).model_copy(update={"encoder": encoder})
    command = _command(request(changed), "int8")
    assert " --data DIR --set encoder.layers=2 --seed 3 " in command
    assert "somebody" not in command
