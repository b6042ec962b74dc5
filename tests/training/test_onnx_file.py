"""Anybody's ONNX file as a frozen encoder."""

import copy
import json
from pathlib import Path

import onnx
import pytest
import torch
from onnx import parser

from nnpm.training.errors import TrainingError
from nnpm.training.network.encoders import load_pretrained, onnx_file
from nnpm.training.network.encoders.onnx_file import OnnxFile
from tests.support.tiny_network import FRAMES, VECTOR, write_graph


def test_frames_are_those_of_the_graph_clip_by_clip(tmp_path: Path) -> None:
    encoder = load_pretrained("onnx", str(write_graph(tmp_path / "a.onnx", FRAMES)), 0)
    waveform = torch.arange(24.0).reshape(2, 12) - 12
    frames, mask = encoder(waveform, torch.tensor([12, 9]))
    assert mask.tolist() == [[True, True, True], [True, True, False]]
    assert torch.equal(frames[0], waveform[0].reshape(3, 4).abs())
    assert torch.equal(frames[1, :2], waveform[1, :8].reshape(2, 4).abs())
    assert encoder.width == 4
    assert encoder.stages() == []


def test_a_vector_is_one_frame(tmp_path: Path) -> None:
    write_graph(tmp_path / "folder/b.onnx", VECTOR)
    encoder = load_pretrained("onnx", str(tmp_path / "folder"), 0)
    frames, mask = encoder(torch.tensor([[1.0, -3.0, 7.0]]), torch.tensor([2]))
    assert frames.tolist() == [[[-2.0, 2.0]]]
    assert mask.tolist() == [[True]]


def test_a_run_stores_it_and_copies_share_it(tmp_path: Path) -> None:
    encoder = load_pretrained("onnx", str(write_graph(tmp_path / "a.onnx", FRAMES)), 0)
    again = OnnxFile.build(json.loads(json.dumps(encoder.sizes)))
    waveform, lengths = torch.randn(1, 8), torch.tensor([8])
    assert torch.equal(again(waveform, lengths)[0], encoder(waveform, lengths)[0])
    assert copy.deepcopy(encoder) is encoder
    assert not encoder.state_dict()


REFUSED = {
    "three inputs": (
        FRAMES.replace("count)", "count, float[batch] level)"),
        r"has the inputs sound tensor\(float\), count tensor\(int64\), level tensor\(float\); it",
    ),
    "no waveform": (
        FRAMES.replace("float[batch, samples] sound", "double[batch, samples] sound").replace(
            "float[batch, time, 4]", "double[batch, time, 4]"
        ),
        "must have a waveform",
    ),
    "whole numbers": (
        VECTOR.replace("float[batch, 2] found", "int64[batch, 2] found").replace(
            "found = Concat <axis = 1> (total, size)",
            "both = Concat <axis = 1> (total, size)\n found = Cast <to = 7> (both)",
        ),
        r"gives tensor\(int64\); it must give tensor\(float\)",
    ),
    "one number per sample": (
        VECTOR.replace("float[batch, 2] found", "float[samples] found").replace(
            "found = Concat <axis = 1> (total, size)", "found = Squeeze (sound)"
        ),
        r"gives the shape \(16000,\) for one clip",
    ),
    "not finite": (
        VECTOR.replace("Concat <axis = 1> (total, size)", "Div (total, size)").replace(
            "float[batch, 2]", "float[batch, 1]"
        ),
        "numbers that are not finite for silence",
    ),
    "another rate": (
        VECTOR.replace("float[batch, samples]", "float[batch, 8000]"),
        "does not run on a second of silence",
    ),
    "an old opset": (
        VECTOR.replace('"" : 13', '"" : 11')
        .replace("axis = Constant <value_ints = [1]> ()", "")
        .replace("<keepdims = 1> (sound, axis)", "<keepdims = 1, axes = [1]> (sound)"),
        "is of opset 11; at least 13 is required",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_graph_of_another_kind_is_one_line(tmp_path: Path, case: str) -> None:
    text, said = REFUSED[case]
    path = tmp_path / "a.onnx"
    model = parser.parse_model(text)
    path.write_bytes(model.SerializeToString())
    refused(path, said)


def test_what_is_no_graph_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused(tmp_path, r"holds 0 files \*\.onnx; it must hold 1")
    path = tmp_path / "a.onnx"
    path.write_bytes(b"not a graph")
    refused(path, "ONNX Runtime cannot read the encoder")
    onnx.save(parser.parse_model(FRAMES), tmp_path / "b.onnx")
    refused(tmp_path, r"holds 2 files \*\.onnx")
    with pytest.raises(TrainingError, match=r"encoder.layers is 3; an ONNX file is taken whole"):
        load_pretrained("onnx", str(path), 3)
    monkeypatch.setattr(onnx_file, "_LARGEST_BYTES", 10)
    refused(path, "has 11 bytes; at most 10 are allowed")


def refused(path: Path, said: str) -> None:
    with pytest.raises(TrainingError, match=said) as caught:
        load_pretrained("onnx", str(path), 0)
    assert "\n" not in str(caught.value)
