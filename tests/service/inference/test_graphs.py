import io
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from nnpm.service.inference import bundle as bundles
from nnpm.service.inference.bundle import Bundle
from nnpm.service.inference.errors import BundleError
from nnpm.service.inference.graphs import Model, softmax
from tests.support.sounds import speechlike
from tests.support.tiny_bundle import (
    LABELS,
    WIDTH,
    embed,
    head_graph,
    model_graph,
    tiny_files,
    write_signed,
    write_tiny_bundle,
)

Edit = Callable[[onnx.ModelProto], None]


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return write_tiny_bundle(tmp_path / "bundle")


def edited(graph: bytes, edit: Edit) -> bytes:
    model = onnx.load_from_string(graph)
    edit(model)
    return model.SerializeToString()


def probe(**changes: np.ndarray) -> bytes:
    with np.load(io.BytesIO(tiny_files()["probe.npz"])) as arrays:
        file = io.BytesIO()
        np.savez(file, **(dict(arrays) | changes))
    return file.getvalue()


def test_softmax_is_exact_and_safe() -> None:
    logits = np.array([[1, 2, 3], [1e30, 0, -1e30], [-np.inf, 0, 0], [-1e4, -1e4, -1e4]])
    found = softmax(logits.astype(np.float32))
    exact = np.exp([1.0, 2.0, 3.0]) / np.exp([1.0, 2.0, 3.0]).sum()
    expected = [exact, [1, 0, 0], [0, 0.5, 0.5], [1 / 3] * 3]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert found.dtype == np.float32


def test_a_batch_is_what_its_clips_are_alone(bundle: Bundle) -> None:
    model = Model(bundle)
    clips = [speechlike(seconds).astype(np.float32) for seconds in (0.1, 0.7, 1.5)]
    waveform = np.zeros((len(clips), max(map(len, clips))), np.float32)
    for row, clip in enumerate(clips):
        waveform[row, : len(clip)] = clip
    logits, embedding = model.run(waveform, np.array([len(clip) for clip in clips]))
    assert logits.shape == (3, len(LABELS))
    assert embedding.shape == (3, WIDTH) == (3, model.width)
    for row, clip in enumerate(clips):
        np.testing.assert_allclose(embedding[row], embed(clip), atol=1e-5)
        alone, _ = model.run(clip[None], np.array([len(clip)]))
        np.testing.assert_allclose(logits[row], alone[0], atol=1e-5)


def test_projections_have_unit_length(bundle: Bundle) -> None:
    embedding = np.random.default_rng(0).random((5, WIDTH)).astype(np.float32)
    expected = embedding / np.linalg.norm(embedding, axis=1, keepdims=True)
    np.testing.assert_allclose(Model(bundle).project(embedding), expected, rtol=1e-5)


@pytest.mark.parametrize("threads", [1, 2])
def test_many_threads_get_the_same_answers(bundle: Bundle, threads: int) -> None:
    model = Model(bundle, threads=threads)
    clips = [speechlike(0.3 + 0.05 * i, seed=i).astype(np.float32) for i in range(16)]

    def run(clip: np.ndarray) -> np.ndarray:
        return model.run(clip[None], np.array([len(clip)]))[0]

    expected = [run(clip) for clip in clips]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(run, clips * 4))
    np.testing.assert_array_equal(found, expected * 4)


def _rename_input(model: onnx.ModelProto) -> None:
    model.graph.input[0].name = "audio"
    for node in model.graph.node:
        node.input[:] = [
            "audio" if name in ("waveform", "embedding") else name for name in node.input
        ]


def _drop_output(model: onnx.ModelProto) -> None:
    del model.graph.output[1]


def _add_output_nowhere_made(model: onnx.ModelProto) -> None:
    model.graph.output.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, [1]))


def _negate_weights(model: onnx.ModelProto) -> None:
    for tensor in model.graph.initializer:
        if tensor.name == "classes":
            values = -np.frombuffer(tensor.raw_data, np.float32)
            tensor.raw_data = values.tobytes()


def _not_a_number(model: onnx.ModelProto) -> None:
    for tensor in model.graph.initializer:
        if tensor.name == "classes":
            tensor.raw_data = np.full(WIDTH * len(LABELS), np.nan, np.float32).tobytes()


GRAPHS = {"model.onnx": model_graph, "head.onnx": head_graph}
EDITS: list[tuple[Edit, str]] = [
    (_rename_input, "it must have"),
    (_drop_output, "do not run on its probe"),
    (_add_output_nowhere_made, "is not a graph that ONNX Runtime can read"),
    (_negate_weights, "fails its golden probe"),
    (_not_a_number, "fails its golden probe"),
]


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize(("edit", "said"), EDITS)
def test_a_foreign_graph_is_refused(bundle: Bundle, name: str, edit: Edit, said: str) -> None:
    write_signed(bundle.path, name, edited(GRAPHS[name](), edit))
    foreign = bundles.load(bundle.path)
    with pytest.raises(BundleError, match=said) as caught:
        Model(foreign)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("data", [b"", b"no graph", b"\x08\x09" * 1_000])
def test_what_is_no_graph_is_refused(bundle: Bundle, name: str, data: bytes) -> None:
    write_signed(bundle.path, name, data)
    with pytest.raises(BundleError, match=rf"{name} is not a graph that ONNX Runtime can read\.$"):
        Model(bundles.load(bundle.path))


PROBES = {
    "other answers": (probe(logits=np.zeros((2, 4), np.float32) + [0, 0, 0, 9]), "golden probe"),
    "no number": (probe(logits=np.full((2, 4), np.nan, np.float32)), "golden probe"),
    "one answer for two clips": (probe(logits=np.zeros((1, 4), np.float32)), "golden probe"),
    "other clips": (probe(waveform=np.zeros((2, 16_000), np.float32)), "golden probe"),
    "no clips": (
        probe(
            waveform=np.zeros((0, 16_000), np.float32),
            lengths=np.zeros(0, np.float32),
            logits=np.zeros((0, 4), np.float32),
        ),
        "do not run on its probe",
    ),
    "flat clips": (probe(waveform=np.zeros(16_000, np.float32)), "do not run on its probe"),
    "in double precision": (probe(waveform=np.zeros((2, 16_000))), "do not run on its probe"),
    "seven emotions": (probe(logits=np.zeros((2, 7), np.float32)), "do not run on its probe"),
}  # fmt: skip


@pytest.mark.parametrize("name", PROBES)
def test_a_probe_that_is_not_met_is_refused(bundle: Bundle, name: str) -> None:
    data, said = PROBES[name]
    write_signed(bundle.path, "probe.npz", data)
    with pytest.raises(BundleError, match=said):
        Model(bundles.load(bundle.path))


def test_more_labels_than_logits_are_refused(tmp_path: Path) -> None:
    bundle = write_tiny_bundle(tmp_path / "bundle", labels=(*LABELS, "fear"))
    with pytest.raises(BundleError, match=r"logits of shape \(2, 4\); .* names 5 emotions\.$"):
        Model(bundle)


def test_the_sound_of_a_failure_is_one_sentence(
    bundle: Bundle, capfd: pytest.CaptureFixture[str]
) -> None:
    write_signed(bundle.path, "head.onnx", edited(head_graph(), _drop_output))
    write_signed(bundle.path, "probe.npz", PROBES["flat clips"][0])
    with pytest.raises(BundleError):
        Model(bundles.load(bundle.path))
    assert capfd.readouterr().err == ""


def test_onnx_runtime_reports_nothing_and_leaves_nothing(bundle: Bundle, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    code = (
        "import sys; from pathlib import Path; from nnpm.service.inference.bundle import load;"
        "from nnpm.service.inference.graphs import Model; Model(load(Path(sys.argv[1])))"
    )
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in ("CI", "ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME")
    }
    subprocess.run(
        [sys.executable, "-B", "-c", code, str(bundle.path)],
        env={**kept, "HOME": str(home), "TMPDIR": str(home)},
        check=True,
    )
    assert list(home.rglob("*")) == []
