"""The whole network, moved with the source's audio at hand."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from nnpm.service.inference import bundle as bundles
from nnpm.service.inference.audio.decode import decode
from nnpm.service.inference.bundle import Bundle
from nnpm.service.inference.recognizer import Recognizer
from nnpm.training import cli
from nnpm.training.adaptation.config import AdaptConfig, FullConfig
from nnpm.training.adaptation.features import whole_log_mel
from nnpm.training.adaptation.full import SourceAudio, fine_tune, in_memory, load_source
from nnpm.training.adaptation.methods import METHODS
from nnpm.training.adaptation.report import Evidence
from nnpm.training.bundle.files import voice
from nnpm.training.data.clips import Ragged
from nnpm.training.errors import TrainingError
from nnpm.training.network.network import Network
from tests.support.tiny_network import LABELS, WIDTH, tiny_network

CONFIG = AdaptConfig(
    refresh_steps=3, ramp_steps=2, full=FullConfig(steps=7, batch=8, learning_rate=1e-3)
)
Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def network() -> Network:
    return tiny_network()


@pytest.fixture(scope="module")
def audio(base: Bundle, network: Network, tiny_corpus: Path, cache: Path) -> SourceAudio:
    return load_source(tiny_corpus, (), base.card, network, cache)


@pytest.fixture(scope="module")
def clips(network: Network) -> Ragged:
    sounds = [voice(100.0 + 12 * number, 0.5, seed=number) for number in range(10)]
    return in_memory([whole_log_mel(network.front_end, s)[0][0, 0].T for s in sounds])


def weights(network: Network) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def moved(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    return {name for name, value in before.items() if not torch.equal(value, after[name])}


def test_held_out_speakers_stay_out(audio: SourceAudio) -> None:
    assert {u.speaker for u in audio.utterances} == {"cleo", "dirk", "emma", "fred"}
    assert [LABELS[index] for index in audio.emotion] == [u.emotion for u in audio.utterances]
    assert len(audio.utterances) == len(audio.clips) == len(audio.features) == 32


def test_a_folder_that_is_the_corpus_will_do(
    base: Bundle, network: Network, tiny_corpus: Path, cache: Path, audio: SourceAudio
) -> None:
    alone = load_source(tiny_corpus / "tiny", (), base.card, network, cache)
    assert alone.utterances == audio.utterances


def test_a_source_that_lacks_an_emotion_is_refused(
    base: Bundle, network: Network, tiny_corpus: Path, cache: Path
) -> None:
    card = base.card.model_copy(update={"labels": ("angry", "fear", "happy", "sad")})
    with pytest.raises(TrainingError, match=r"the source in .* has no clip of fear"):
        load_source(tiny_corpus, ("tiny",), card, network, cache)


def test_the_memory_is_what_the_service_hears(base: Bundle, audio: SourceAudio) -> None:
    memory = audio.memory(tiny_network())
    assert memory.features.shape == (32, WIDTH)
    assert set(memory.corpus) == {"tiny"}
    recognizer = Recognizer(base)
    for slot in (0, 31):
        _, embedding, _ = recognizer.score(audio.clips[slot])
        np.testing.assert_allclose(memory.features[slot], embedding[0], rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("name", [name for name, kind in METHODS.items() if kind.trains])
def test_every_method_moves_the_whole_network(
    name: str, network: Network, audio: SourceAudio, clips: Ragged
) -> None:
    before = weights(network)
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    first = fine_tune(network, audio, clips, name, CONFIG, seed=0)
    assert torch.equal(torch.rand(1), expected), "torch's global generator was moved"
    assert not moved(before, weights(network)), "the bundle's network was changed"
    after = weights(first)
    assert all(value.isfinite().all() for value in after.values())
    changed = moved(before, after)
    assert {"head.projection.weight", "head.classes", "encoder.stem.0.weight"} <= changed
    assert not {key for key in changed if "running" in key or key.startswith("head.norm")}
    again = fine_tune(network, audio, clips, name, CONFIG, seed=0)
    assert not moved(after, weights(again))
    assert not first.training


def test_another_seed_gives_another_network(
    network: Network, audio: SourceAudio, clips: Ragged
) -> None:
    one, other = (fine_tune(network, audio, clips, "entropy", CONFIG, seed) for seed in (0, 1))
    assert moved(weights(one), weights(other))


def test_it_learns_the_source(network: Network, audio: SourceAudio, clips: Ragged) -> None:
    """The untrained network guesses among four; 60 steps later it does not."""
    config = CONFIG.model_copy(
        update={"full": FullConfig(steps=60, batch=16, learning_rate=3e-3), "refresh_steps": 20}
    )
    reported: list[tuple[int, int]] = []
    better = fine_tune(
        network,
        audio,
        clips,
        "coral",
        config,
        0,
        lambda done, total: reported.append((done, total)),
    )
    assert reported == [(step, 60) for step in range(1, 61)]
    shares = []
    for one in (network, better):
        with torch.no_grad():
            pooled = torch.from_numpy(audio.memory(one).features)
            shares.append(float((one.head(pooled)[0].argmax(1) == audio.emotion).float().mean()))
    assert shares[0] < 0.6
    assert shares[1] > 0.8


def test_what_trains_nothing_is_refused(
    network: Network, audio: SourceAudio, clips: Ragged
) -> None:
    with pytest.raises(TrainingError, match="source_only takes no training steps"):
        fine_tune(network, audio, clips, "source_only", CONFIG, seed=0)


def test_the_command_makes_a_bundle_that_answers(
    base: Bundle, tiny_corpus: Path, voices: Path, cache: Path, tmp_path: Path, capsys: Captured,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    evidence = Evidence(
        verdict="improved", reasons=(), estimated_accuracy=None, figures={"answers_changed": 0.5}
    )
    monkeypatch.setattr("nnpm.training.adaptation.command.collect_evidence", lambda *_: evidence)
    config, out = tmp_path / "adapt.toml", tmp_path / "bundle"
    config.write_text("steps = 5\nviews = 1\n[full]\nsteps = 3\nbatch = 8\n")
    command = ["adapt", "--bundle", base.path, "--target", voices, "--out", out, "--json"]
    command += ["--method", "entropy", "--config", config, "--cache", cache]
    assert cli.main([*map(str, command), "--full", "--source", str(tiny_corpus)]) == 0
    document = json.loads(capsys.readouterr().out)
    assert list(document["seconds"]) == [
        "decode", "fine-tune", "listen", "adapt", "judge", "publish"
    ]  # fmt: skip
    recognizer = Recognizer(bundles.load(out))
    assert len(recognizer.bundle.memory().emotion) == 32
    clip = decode(voices / "01.wav")
    assert recognizer.answer(clip).scores != Recognizer(base).answer(clip).scores
    # ... and it can be adapted again
    again = [str(part) for part in [*command[:1], "--bundle", out, *command[3:5]]]
    again += ["--out", str(tmp_path / "again"), "--method", "adabn"]
    assert cli.main(again) == 0


def test_full_and_source_go_together(
    base: Bundle, tiny_corpus: Path, voices: Path, tmp_path: Path, capsys: Captured
) -> None:
    command = ["adapt", "--bundle", str(base.path), "--target", str(voices)]
    command += ["--out", str(tmp_path / "out"), "--method", "entropy", "--cache", str(tmp_path)]
    for more in (["--full"], ["--source", str(tiny_corpus)]):
        assert cli.main([*command, *more]) == 2
        assert "must be given together" in capsys.readouterr().err
    wrong = shutil.copytree(tiny_corpus / "tiny", tmp_path / "x" / "nowhere")
    (wrong / "metadata.csv").unlink()
    assert cli.main([*command, "--full", "--source", str(wrong)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
