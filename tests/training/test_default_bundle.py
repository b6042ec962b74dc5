"""The model that the repository carries, on real clips where there are any."""

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile

from nnpm.service.inference import bundle as bundles
from nnpm.service.inference.audio.decode import decode
from nnpm.service.inference.audio.waveform import Recording
from nnpm.service.inference.graphs import softmax
from nnpm.service.inference.recognizer import Recognizer
from nnpm.training.corpora import load
from nnpm.training.data.batches import pad
from nnpm.training.data.clips import load_waveform
from nnpm.training.evaluation import judge, report

DEFAULT = Path(__file__).parents[2] / "models" / "default" / "2"
CORE = ("angry", "happy", "neutral", "sad")


@pytest.fixture(scope="module")
def recognizer() -> Recognizer:
    return Recognizer(bundles.load(DEFAULT))


def test_it_is_small_and_says_what_it_is(recognizer: Recognizer) -> None:
    size = sum(file.stat().st_size for file in DEFAULT.iterdir())
    assert size < 15 * 1024**2  # 6 MB of it are the memory: 661 numbers a slot
    card = recognizer.bundle.card
    assert {corpus["name"] for corpus in card.training["corpora"]} == {"ravdess", "nemo"}
    assert card.licence == "CC BY-NC-SA 4.0"
    text = (DEFAULT / "README.md").read_text()
    for topic in ("CC BY-NC-SA 4.0", "workplace", "education", "women", "ravdess", "nnpm train"):
        assert topic in text


def test_its_card_says_how_it_did_on_speakers_it_never_heard(recognizer: Recognizer) -> None:
    card = recognizer.bundle.card
    figures = card.metrics["held_out_source"]
    assert figures["uar"] > 0.4  # eight emotions: chance is 0.125
    assert f"ECE {figures['ece']:.3f}" in (DEFAULT / "README.md").read_text()
    for corpus in card.training["corpora"]:
        train, validation, test = (
            set(corpus["speakers"][side]) for side in ("train", "validation", "test")
        )
        assert validation
        assert test
        assert not train & validation | train & test | validation & test


@pytest.mark.corpora
def test_the_graph_ignores_padding_and_company_on_real_clips(
    recognizer: Recognizer, corpora: Path
) -> None:
    paths = [
        utterance.path
        for name in ("urdu", "emodb", "ased", "emotiontts")
        for utterance in load(name, corpora)[:: 12 if name == "ased" else 9][:25]
    ]
    clips = [load_waveform(path).samples for path in paths]
    assert len(clips) == 100
    waveform, lengths = pad(clips)
    for start in range(0, 100, 10):
        rows = slice(start, start + 10)
        together, _ = recognizer.model.run(waveform[rows].numpy(), lengths[rows].numpy())
        for row, clip in enumerate(clips[rows]):
            alone, _ = recognizer.model.run(clip[None], np.array([len(clip)], np.int64))
            assert np.abs(softmax(alone[0]) - softmax(together[row])).max() <= 1e-5


@pytest.mark.corpora
@pytest.mark.parametrize("name", ["urdu", "emodb", "emotiontts"])
def test_it_beats_chance_in_languages_it_never_heard(
    recognizer: Recognizer, corpora: Path, name: str
) -> None:
    figures = report(judge(recognizer, load(name, corpora), CORE), CORE)
    assert figures["uar"] > 0.33  # chance is 0.25


def test_strange_sounds_are_not_answered_with_confidence(recognizer: Recognizer) -> None:
    rng = np.random.default_rng(0)
    for sound in (np.zeros(48_000), 0.1 * rng.standard_normal(48_000)):
        answer = recognizer.answer(_recording(sound.astype(np.float32)))
        assert answer.emotion is None
        assert "no_speech" in answer.reasons


def _recording(samples: np.ndarray) -> Recording:
    file = io.BytesIO()
    soundfile.write(file, samples, 16_000, format="WAV")
    return decode(file.getvalue())
