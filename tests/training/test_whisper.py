"""Whisper's encoder: against transformers' and numpy, padded, and from folders of all kinds."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from nnpm.training.errors import TrainingError
from nnpm.training.network.encoders import load_pretrained
from nnpm.training.network.encoders.whisper import LogMel, Whisper, _with_gaps, mel_filters
from tests.support.tiny_network import WHISPER, tiny_whisper, write_whisper


def reference_log_mel(samples: np.ndarray, num_mels: int) -> np.ndarray:
    """Whisper's front end for one clip, frame by frame, in float64."""
    rms = np.sqrt(np.mean(samples**2))
    samples = samples * (0.05 / rms if rms > 1e-5 else 1.0)
    padded = np.concatenate([np.zeros(200), samples, np.zeros(400)])
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    filters = mel_filters(num_mels, 201).numpy()
    frames = [
        np.abs(np.fft.rfft(window * padded[start : start + 400])) ** 2 @ filters
        for start in range(0, len(samples), 160)
    ]
    log_mel = np.log10(np.maximum(frames, 1e-10)).T
    return (np.maximum(log_mel, log_mel.max() - 8) + 4) / 4


@pytest.mark.parametrize("length", [399, 1_600, 8_001, 16_159])
def test_log_mel_is_the_plain_one(length: int, rng: np.random.Generator) -> None:
    samples = 0.3 * rng.standard_normal(length) * np.sin(np.arange(length) / 300)
    waveform = torch.tensor(samples, dtype=torch.float32)[None]
    found, mask = LogMel(20)(waveform, torch.tensor([length]))
    assert mask.all()
    np.testing.assert_allclose(found[0].numpy(), reference_log_mel(samples, 20), atol=2e-3)


def test_silence_is_finite_and_not_scaled_up() -> None:
    found, _ = LogMel(20)(torch.zeros(1, 4_000), torch.tensor([4_000]))
    assert (found == -1.5).all()  # ten decades below 1, in Whisper's units


def test_filters_are_slaneys() -> None:
    """Numbers of ``librosa.filters.mel(sr=16000, n_fft=400, n_mels=80)``, as Whisper ships them."""
    filters = mel_filters(80, 201)
    assert filters.min() == 0
    assert filters[1, 0] == pytest.approx(0.02486259, abs=1e-6)
    # every triangle has the same area, in Hz
    np.testing.assert_allclose(filters.sum(0)[60:] * 40, 1.0, atol=0.03)


@torch.no_grad()
def test_padding_and_company_change_nothing(rng: np.random.Generator) -> None:
    encoder = tiny_whisper().eval()
    lengths = [512, 1_600, 8_001, 20_000]
    clips = [torch.tensor(rng.standard_normal(n), dtype=torch.float32) for n in lengths]
    waveform = torch.full((4, 20_000), 9.0)  # what lies behind the end has no effect either
    for row, clip in zip(waveform, clips, strict=True):
        row[: len(clip)] = clip
    frames, mask = encoder(waveform, torch.tensor(lengths))
    for row, inside, clip in zip(frames, mask, clips, strict=True):
        alone, whole = encoder(clip[None], torch.tensor([len(clip)]))
        assert whole.all()
        assert inside.sum() == alone.shape[1] == -(-len(clip) // 320)
        torch.testing.assert_close(row[inside], alone[0], atol=1e-5, rtol=1e-4)


def transformers_states(folder: Path, log_mel: torch.Tensor, **sizes: Any) -> list[torch.Tensor]:
    """The hidden states of transformers' encoder, for 30 s as it insists."""
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    given = json.loads((folder / "config.json").read_text()) | sizes
    theirs = WhisperEncoder(WhisperConfig.from_dict(given)).eval()
    tensors = load_file(folder / "model.safetensors")
    own = {
        name.removeprefix("model.").removeprefix("encoder."): value.float()
        for name, value in tensors.items()
    }
    missing, _ = theirs.load_state_dict(own, strict=False)
    assert set(missing) <= {"layer_norm.weight", "layer_norm.bias"}
    with torch.no_grad():
        return list(theirs(log_mel, output_hidden_states=True).hidden_states)


def compare(folder: Path, layers: int, **sizes: Any) -> None:
    """30 s of noise through our layers and theirs."""
    ours = load_pretrained("whisper", str(folder), layers).eval()
    assert isinstance(ours, Whisper)
    waveform = 0.1 * torch.randn(1, 480_000, generator=torch.Generator().manual_seed(0))
    lengths = torch.tensor([480_000])
    log_mel, _ = ours.log_mel(waveform, lengths)
    states = transformers_states(folder, log_mel, **sizes)
    with torch.no_grad():
        frames, mask = ours(waveform, lengths)
    assert mask.all()
    assert frames.shape == states[layers].shape
    tolerance = 1e-4 * float(states[layers].abs().max())
    torch.testing.assert_close(frames, states[layers], atol=tolerance, rtol=1e-4)


def test_hidden_states_are_transformers(tiny_encoder: Path) -> None:
    # one layer more, because theirs norms its last state
    sizes = {"encoder_layers": 2, "activation_function": "gelu"}
    compare(tiny_encoder, 1, **sizes)


@pytest.mark.slow
def test_hidden_states_of_the_real_one_are_transformers(backbone: Path) -> None:
    compare(backbone, 3)


def test_gaps_take_the_mean_and_leave_the_padding() -> None:
    torch.manual_seed(0)
    log_mel = torch.randn(6, 20, 60)
    mask = torch.arange(60) < torch.tensor([60, 60, 55, 50, 45, 40])[:, None]
    log_mel = torch.where(mask[:, None], log_mel, 0.0)
    found = _with_gaps(log_mel, mask)
    for before, after, inside in zip(log_mel, found, mask, strict=True):
        changed = before != after
        assert not changed[:, ~inside].any()
        mean = before[:, inside].mean()
        torch.testing.assert_close(after[changed], mean.expand(int(changed.sum())))
        bands = (changed | ~inside).all(1)
        times = changed.all(0)
        assert 1 <= bands.sum() <= 9
        assert 1 <= times.sum() <= 21
        assert (changed == ((bands[:, None] | times) & inside)).all()


def test_gaps_are_made_in_training_alone(rng: np.random.Generator) -> None:
    encoder = tiny_whisper()
    encoder.mask_p = 1.0
    waveform = torch.tensor(rng.standard_normal((2, 8_000)), dtype=torch.float32)
    lengths = torch.tensor([8_000, 8_000])
    with torch.no_grad():
        exact, _ = encoder.eval()(waveform, lengths)
        masked, _ = encoder.train()(waveform, lengths)
        encoder.mask_p = 0.0
        unmasked, _ = encoder(waveform, lengths)
    assert torch.equal(exact, unmasked)
    assert not torch.equal(exact, masked)


def test_stages_leave_front_end_and_positions_alone() -> None:
    encoder = tiny_whisper()
    trained = {id(parameter) for stage in encoder.stages() for parameter in stage}
    frozen = {name for name, p in encoder.named_parameters() if id(p) not in trained}
    assert frozen == {"conv1.weight", "conv1.bias", "embed_positions.weight"}
    assert len(encoder.stages()) == 1 + 2


def test_layers_are_kept_from_the_first(tiny_encoder: Path) -> None:
    one, both = (load_pretrained("whisper", str(tiny_encoder), n) for n in (1, 0))
    assert (one.sizes["layers"], both.sizes["layers"]) == (1, 2)
    assert len(one.stages()) == 2
    whole = both.state_dict()
    assert all(torch.equal(value, whole[name]) for name, value in one.state_dict().items())
    again = Whisper.build(json.loads(json.dumps(one.sizes)))
    again.load_state_dict(one.state_dict())


def damaged(folder: Path, edit: Any) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    edit(tensors)
    save_file(tensors, path)


FC1 = "model.encoder.layers.0.fc1.weight"
BAD_TENSORS = {
    "a tensor is missing": (lambda t: t.pop(FC1), r"has no tensor layers\.0\.fc1\.weight"),
    "of another shape": (
        lambda t: t.update({FC1: torch.zeros(3, 4)}),
        r"fc1\.weight has the shape \(3, 4\); the config says \(24, 16\)",
    ),
    "not finite": (lambda t: t[FC1].fill_(torch.nan), r"fc1\.weight holds numbers that are not"),
}


@pytest.mark.parametrize("case", BAD_TENSORS)
def test_weights_that_do_not_fit_are_one_line(tmp_path: Path, case: str) -> None:
    edit, said = BAD_TENSORS[case]
    folder = write_whisper(tmp_path / "encoder")
    damaged(folder, edit)
    refused(folder, said)


BAD_CONFIGS: dict[str, tuple[dict[str, object], str]] = {
    "another architecture": ({"model_type": "bert"}, "holds a model of type 'bert'; this family"),
    "no architecture": ({"model_type": ["whisper"]}, "holds a model of type"),
    "no size": ({"d_model": None}, "d_model is None; it must be a whole number from 1"),
    "a size of another kind": ({"encoder_layers": "two"}, "encoder_layers is two; it must be"),
    "no layers": ({"encoder_layers": 0}, "encoder_layers is 0; it must be a whole number"),
    "heads that do not share": ({"encoder_attention_heads": 3}, "it must be a multiple of"),
    "fewer layers than asked for": ({"encoder_layers": 1}, r"layers is 2; .* has 1: set at most 1"),
}


@pytest.mark.parametrize("case", BAD_CONFIGS)
def test_a_config_that_does_not_fit_is_one_line(tmp_path: Path, case: str) -> None:
    changes, said = BAD_CONFIGS[case]
    refused(write_whisper(tmp_path / "encoder", **changes), said)


def test_a_folder_that_is_no_encoder_is_one_line(tmp_path: Path, tiny_encoder: Path) -> None:
    refused(tmp_path, r"holds no speech encoder: config\.json cannot be read \(No such file")
    for text in ("{", "[]", "null", "[" * 100_000, "\xff"):
        (tmp_path / "config.json").write_text(text, encoding="latin-1")
        refused(tmp_path, r"holds no speech encoder: config\.json names no model_type")
    (tmp_path / "config.json").write_text(json.dumps(WHISPER))
    refused(tmp_path, r"model\.safetensors cannot be read: No such file")
    (tmp_path / "model.safetensors").write_bytes(b"\x80\x04cos\nsystem\n")  # a pickle
    refused(tmp_path, r"model\.safetensors cannot be read: ")
    refused(tiny_encoder / "config.json", "holds no speech encoder")


def refused(folder: Path, said: str) -> None:
    with pytest.raises(TrainingError, match=said) as caught:
        load_pretrained("whisper", str(folder), 2)
    assert "\n" not in str(caught.value)
