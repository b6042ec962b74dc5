"""The models that the repository carries, on real clips where there are any."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml

from nnpm.service.inference import bundle as bundles
from nnpm.service.inference.audio.decode import decode
from nnpm.service.inference.audio.waveform import Recording
from nnpm.service.inference.recognizer import Recognizer
from nnpm.training.corpora import load
from nnpm.training.data.batches import pad
from nnpm.training.data.clips import load_waveform
from nnpm.training.evaluation import judge, report

MODELS = Path(__file__).parents[2] / "models"
LEARNT_FROM = {
    "default": {"ravdess", "crema", "nemo", "banglaser"},
    "open": {"crema", "banglaser"},
}
BUNDLES = [path.parent for name in LEARNT_FROM for path in MODELS.glob(f"{name}/*/bundle.json")]
CORE = ("angry", "happy", "neutral", "sad")


@pytest.fixture(scope="module", params=BUNDLES, ids=lambda path: path.parent.name)
def recognizer(request: pytest.FixtureRequest) -> Recognizer:
    return Recognizer(bundles.load(request.param))


def test_it_is_small_and_says_what_it_is(recognizer: Recognizer) -> None:
    path, card = recognizer.bundle.path, recognizer.bundle.card
    assert sum(file.stat().st_size for file in path.iterdir()) < 30 * 1024**2
    assert {c["name"] for c in card.training["corpora"]} == LEARNT_FROM[path.parent.name]
    assert card.training["precision"] == "int8"
    assert "calm" not in card.labels
    text = (path / "README.md").read_text()
    for topic in ("workplace", "education", "women", "crema", "nnpm train"):
        assert topic in text
    front = yaml.safe_load(text.split("---\n")[1])
    assert front["datasets"] == sorted(LEARNT_FROM[path.parent.name])
    told = recognizer.model._session.get_modelmeta().custom_metadata_map
    assert json.loads(told["labels"]) == list(card.labels)
    assert told["licence"] == card.licence


def test_its_notice_names_all_that_it_was_made_from(recognizer: Recognizer) -> None:
    text = (recognizer.bundle.path / "NOTICE").read_text()
    assert "Copyright (c) 2022 OpenAI" in text
    assert "Das, Islam, Ahmed, Islam, Shatabda & Islam (2022), BanglaSER" in text
    assert "Open Database License 1.0" in text
    restricted = "CC BY-NC-SA 4.0"
    is_open = recognizer.bundle.path.parent.name == "open"
    assert (restricted in text) is (restricted in recognizer.bundle.card.licence) is not is_open


def test_its_card_says_how_it_did_on_speakers_it_never_heard(recognizer: Recognizer) -> None:
    card = recognizer.bundle.card
    figures = card.metrics["held_out_source"]
    assert figures["uar"] > 0.5  # of five or more emotions
    assert figures["ece"] <= 0.05
    assert f"ECE {figures['ece']:.3f}" in (recognizer.bundle.path / "README.md").read_text()
    assert card.metrics["parity"]["torch"] <= 1e-3
    assert card.metrics["parity"]["int8"] <= 0.01
    for corpus in card.training["corpora"]:
        train, held_out = (set(corpus["speakers"][side]) for side in ("train", "held_out"))
        assert held_out
        assert not train & held_out


@pytest.mark.corpora
def test_a_batch_is_exactly_what_its_clips_are_alone(recognizer: Recognizer, corpora: Path) -> None:
    paths = [
        utterance.path
        for name in ("urdu", "emodb", "ased", "emotiontts")
        for utterance in load(name, corpora)[::29][:8]
    ]
    clips = [load_waveform(path).samples for path in paths]
    waveform, lengths = pad(clips)
    together = recognizer.model.run(waveform.numpy(), lengths.numpy()).probabilities
    for row, clip in zip(together, clips, strict=True):
        alone = recognizer.model.run(clip[None], np.array([len(clip)], np.int64)).probabilities[0]
        assert np.array_equal(row, alone)


@pytest.mark.corpora
@pytest.mark.parametrize("name", ["urdu", "emodb", "emotiontts"])
def test_it_beats_chance_in_languages_it_never_heard(
    recognizer: Recognizer, corpora: Path, name: str
) -> None:
    figures = report(judge(recognizer, load(name, corpora)[::3], CORE), CORE)
    assert figures["uar"] > 0.35  # chance is 0.25


def test_non_speech_is_not_answered(recognizer: Recognizer) -> None:
    rng = np.random.default_rng(0)
    for sound in (np.zeros(48_000), 0.1 * rng.standard_normal(48_000)):
        answer = recognizer.answer(_recording(sound.astype(np.float32)))
        assert answer.emotion is None
        assert "no_speech" in answer.reasons


def _recording(samples: np.ndarray) -> Recording:
    file = io.BytesIO()
    soundfile.write(file, samples, 16_000, format="WAV")
    return decode(file.getvalue())
