"""Encoders of transformers, tiny and with random weights, read from what save_pretrained wrote."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from nnpm.training.errors import TrainingError
from nnpm.training.network.encoders import load_pretrained
from nnpm.training.network.encoders.huggingface import HuggingFace

SIZES = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
    "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2, "conv_dim": [8, 8, 8],
    "conv_kernel": [10, 8, 4], "conv_stride": [5, 8, 8], "num_feat_extract_layers": 3,
}  # fmt: skip
KINDS = [
    ("wav2vec2", {"feat_extract_norm": "group", "add_adapter": True}),
    ("wav2vec2", {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}),
    ("hubert", {"feat_extract_norm": "group"}),
    ("wavlm", {"feat_extract_norm": "group"}),
    ("data2vec-audio", {}),
]


def write_model(folder: Path, kind: str, **changes: Any) -> Path:
    """A model of ``kind`` with random weights, as transformers writes it."""
    from transformers import AutoConfig, AutoModel

    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **(SIZES | changes))
    AutoModel.from_config(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: f"{kind[0]}-{len(kind[1])}")
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    kind, changes = request.param
    return write_model(tmp_path_factory.mktemp("models") / kind, kind, **changes)


def noise(length: int) -> torch.Tensor:
    return 0.1 * torch.randn(length, generator=torch.Generator().manual_seed(length)) + 0.02


@torch.no_grad()
def test_frames_are_the_hidden_state_of_the_model_itself(folder: Path) -> None:
    from transformers import AutoModel

    encoder = load_pretrained("huggingface", str(folder), 0).eval()
    clip = noise(9_000)
    frames, mask = encoder(clip[None], torch.tensor([len(clip)]))
    assert mask.all()
    theirs = AutoModel.from_pretrained(folder).eval()
    if getattr(theirs, "adapter", None) is not None:
        theirs.adapter = None
    scaled = (clip - clip.mean()) / (clip.var(correction=0) + 1e-7).sqrt()
    expected = theirs(scaled[None]).last_hidden_state
    torch.testing.assert_close(frames, expected, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_padding_and_company_change_nothing(folder: Path) -> None:
    encoder = load_pretrained("huggingface", str(folder), 1).eval()
    clips = [noise(n) for n in (3_200, 8_001, 9_000)]
    waveform = torch.full((3, 9_500), 5.0)
    for row, clip in zip(waveform, clips, strict=True):
        row[: len(clip)] = clip
    frames, mask = encoder(waveform, torch.tensor([len(clip) for clip in clips]))
    for row, inside, clip in zip(frames, mask, clips, strict=True):
        alone, _ = encoder(clip[None], torch.tensor([len(clip)]))
        assert inside.sum() == alone.shape[1]
        torch.testing.assert_close(row[inside], alone[0], atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_its_convolutions_can_be_kept_or_the_whole(folder: Path) -> None:
    encoder = load_pretrained("huggingface", str(folder), 0).eval()
    waveform = torch.stack([noise(9_000), torch.cat([noise(5_000), torch.zeros(4_000)])])
    lengths = torch.tensor([9_000, 5_000])
    frames, inside = encoder(waveform, lengths)
    for frozen, width in ((0, 8), (1, 8), (2, 16)):
        states, mask = encoder.lower(waveform, lengths, frozen)
        assert states.shape[2] == width
        kept = torch.where(mask[..., None], states, 0.0)  # as they are padded
        found, still = encoder.upper(kept, mask, frozen)
        assert torch.equal(still, inside)
        torch.testing.assert_close(found[inside], frames[inside], atol=1e-5, rtol=1e-4)


def test_stages_are_its_layers_and_a_run_builds_it_again(folder: Path) -> None:
    encoder = load_pretrained("huggingface", str(folder), 1)
    assert [len(stage) > 0 for stage in encoder.stages()] == [True]
    again = HuggingFace.build(json.loads(json.dumps(encoder.sizes)))
    again.load_state_dict(encoder.state_dict())
    frames, _ = encoder.train()(noise(4_000)[None], torch.tensor([4_000]))
    frames.sum().backward()
    assert all(p.grad is not None for p in encoder.stages()[0] if p.requires_grad)


def test_weights_as_they_were_published_have_older_names(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model", "hubert")
    new = load_pretrained("huggingface", str(folder), 0).state_dict()
    path = folder / "model.safetensors"
    halves = {"original0": "weight_g", "original1": "weight_v"}
    old = {}
    for name, value in load_file(path).items():
        for half, before in halves.items():
            name = name.replace(f"parametrizations.weight.{half}", before)
        old[f"hubert.{name}"] = value
    assert any(name.endswith("weight_g") for name in old)
    save_file(old, path)
    found = load_pretrained("huggingface", str(folder), 0).state_dict()
    assert all(torch.equal(value, new[name]) for name, value in found.items())


def test_what_is_no_such_model_is_one_line(tmp_path: Path, tiny_encoder: Path) -> None:
    refused(tiny_encoder, "holds a model of type 'whisper'; this family takes data2vec-audio")
    folder = write_model(tmp_path / "model", "wav2vec2")
    config = json.loads((folder / "config.json").read_text())
    for changes, said in (
        ({"hidden_size": "wide"}, "config.json describes no encoder: "),
        ({"hidden_size": 17}, "config.json describes no encoder: "),
        ({"feat_extract_norm": "batch"}, "config.json describes no encoder: "),
        ({"intermediate_size": 25}, "the config says"),
        ({"num_hidden_layers": 3}, "has no tensor encoder.layers.2"),
    ):
        (folder / "config.json").write_text(json.dumps(config | changes))
        refused(folder, said)


def refused(folder: Path, said: str) -> None:
    with pytest.raises(TrainingError, match=said) as caught:
        load_pretrained("huggingface", str(folder), 0)
    assert "\n" not in str(caught.value)


def test_a_clip_of_one_value_is_finite(folder: Path) -> None:
    encoder = load_pretrained("huggingface", str(folder), 1).eval()
    with torch.no_grad():
        frames, _ = encoder(torch.ones(1, 4_000), torch.tensor([4_000]))
    assert np.isfinite(frames.numpy()).all()
