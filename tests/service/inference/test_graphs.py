import io
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import soundfile
from onnx import TensorProto, helper

from nnpm.service.inference import bundle as bundles
from nnpm.service.inference.bundle import Bundle
from nnpm.service.inference.errors import BundleError
from nnpm.service.inference.graphs import Model, open_session, shrink_arena, softmax
from nnpm.training.bundle.parts import memory_file
from tests.support.sounds import speechlike
from tests.support.tiny_bundle import (
    LABELS,
    PROJECTED,
    WIDTH,
    classify,
    embed,
    tiny_files,
    tiny_head,
    tiny_memory,
    write_signed,
    write_tiny_bundle,
)

ROOT = Path(__file__).parents[3]
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


def test_a_batch_is_exactly_what_its_clips_are_alone(bundle: Bundle) -> None:
    model = Model(bundle)
    clips = [speechlike(seconds).astype(np.float32) for seconds in (0.1, 0.7, 1.5)]
    waveform = np.full((len(clips), max(map(len, clips))), 0.5, np.float32)  # no silent padding
    for row, clip in enumerate(clips):
        waveform[row, : len(clip)] = clip
    found = model.run(waveform, np.array([len(clip) for clip in clips]))
    assert found.probabilities.shape == found.logits.shape == (3, len(LABELS))
    assert found.out_of_domain.shape == (3,)
    assert found.embedding.shape == (3, WIDTH) == (3, model.width)
    for row, clip in enumerate(clips):
        np.testing.assert_allclose(found.embedding[row], embed(clip), atol=1e-5)
        np.testing.assert_allclose(found.logits[row], classify(clip), atol=1e-4)
        alone = model.run(clip[None], np.array([len(clip)]))
        for name, values in alone._asdict().items():
            np.testing.assert_array_equal(getattr(found, name)[row], values[0])
        score = model.score(clip)
        assert score.probabilities.tolist() == alone.probabilities[0].tolist()
        assert score.out_of_domain == alone.out_of_domain[0]
        assert score.embedding.tolist() == alone.embedding[0].tolist()


@pytest.mark.parametrize("count", [0, 1, 7, 40, 100])
def test_the_nearest_are_those_of_a_sort(bundle: Bundle, count: int) -> None:
    head, memory, model = tiny_head(), tiny_memory(), Model(bundle)
    query = embed(speechlike(1.0).astype(np.float32))
    standard = np.vstack([memory.features, (query - head.mean) / head.deviation])
    projected = standard @ head.weight.T + head.bias
    projected /= np.linalg.norm(projected, axis=1, keepdims=True)
    cosines = projected[:-1] @ projected[-1]
    order = sorted(range(len(cosines)), key=lambda slot: -float(cosines[slot]))[:count]
    found = model.nearest(query, count)
    assert projected.shape[1] == PROJECTED
    assert [near.emotion for near in found] == [LABELS[memory.emotion[slot]] for slot in order]
    assert [near.corpus for near in found] == [memory.corpus[slot] for slot in order]
    assert [near.language for near in found] == [memory.language[slot] for slot in order]
    np.testing.assert_allclose([near.similarity for near in found], cosines[order], atol=1e-5)


def test_head_and_memory_are_opened_for_neighbours_alone_and_once(bundle: Bundle) -> None:
    model = Model(bundle)
    files = ["head.safetensors", "memory.safetensors"]
    away = [(bundle.path / name).rename(bundle.path / f"{name}.away") for name in files]
    clip = speechlike(1.0).astype(np.float32)
    score = model.score(clip)
    assert model.nearest(score.embedding, 0) == ()
    with pytest.raises(BundleError, match="cannot be read"):
        model.nearest(score.embedding, 1)
    for path, name in zip(away, files, strict=True):
        path.rename(bundle.path / name)
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda _: model.nearest(score.embedding, 3), range(32)))
    assert len(found) == 1
    for name in files:
        (bundle.path / name).unlink()
    assert {model.nearest(score.embedding, 3)} == found


@pytest.mark.parametrize("threads", [1, 2])
def test_many_threads_get_the_same_answers(bundle: Bundle, threads: int) -> None:
    model = Model(bundle, threads=threads)
    clips = [speechlike(0.3 + 0.05 * i, seed=i).astype(np.float32) for i in range(16)]

    def run(clip: np.ndarray) -> np.ndarray:
        return model.score(clip).probabilities

    expected = [run(clip) for clip in clips]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(run, clips * 4))
    np.testing.assert_array_equal(found, expected * 4)


def _rename_input(model: onnx.ModelProto) -> None:
    model.graph.input[0].name = "audio"
    for node in model.graph.node:
        node.input[:] = ["audio" if name == "waveform" else name for name in node.input]


def _drop_output(model: onnx.ModelProto) -> None:
    del model.graph.output[-1]


def _add_output_nowhere_made(model: onnx.ModelProto) -> None:
    model.graph.output.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, [1]))


def _negate_weights(model: onnx.ModelProto) -> None:
    for tensor in model.graph.initializer:
        if tensor.name == "answer/classes":
            tensor.raw_data = (-np.frombuffer(tensor.raw_data, np.float32)).tobytes()


def _not_a_number(model: onnx.ModelProto) -> None:
    for tensor in model.graph.initializer:
        if tensor.name == "answer/classes":
            values = np.frombuffer(tensor.raw_data, np.float32)
            tensor.raw_data = np.full_like(values, np.nan).tobytes()


def _move_midpoint(model: onnx.ModelProto) -> None:
    for tensor in model.graph.initializer:
        if tensor.name == "answer/domain_midpoint":
            tensor.raw_data = np.float32(-90.0).tobytes()


EDITS: list[tuple[Edit, str]] = [
    (_rename_input, "it must have"),
    (_drop_output, "does not run on its probe"),
    (_add_output_nowhere_made, "is not a graph that ONNX Runtime can read"),
    (_negate_weights, "fails its golden probe"),
    (_not_a_number, "fails its golden probe"),
    (_move_midpoint, "fails its golden probe"),
]


@pytest.mark.parametrize(("edit", "said"), EDITS)
def test_a_foreign_graph_is_refused(bundle: Bundle, edit: Edit, said: str) -> None:
    write_signed(bundle.path, "model.onnx", edited(tiny_files()["model.onnx"], edit))
    foreign = bundles.load(bundle.path)
    with pytest.raises(BundleError, match=said) as caught:
        Model(foreign)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"no graph", b"\x08\x09" * 1_000])
def test_what_is_no_graph_is_refused(bundle: Bundle, data: bytes) -> None:
    write_signed(bundle.path, "model.onnx", data)
    with pytest.raises(BundleError, match=r"model.onnx is not a graph that ONNX Runtime can read"):
        Model(bundles.load(bundle.path))


def test_a_graph_alone_that_is_none_is_refused() -> None:
    with pytest.raises(BundleError, match=r"^This is not a graph"):
        open_session(b"no graph")


CLIPS = 3
PROBES = {
    "other answers": (
        probe(probabilities=np.zeros((CLIPS, 4), np.float32) + [0, 0, 0, 1]), "golden probe"
    ),
    "another distance": (probe(out_of_domain=np.full(CLIPS, 0.5, np.float32)), "golden probe"),
    "no number": (
        probe(probabilities=np.full((CLIPS, 4), np.nan, np.float32)), "golden probe"
    ),
    "no numbers of distance": (
        probe(out_of_domain=np.full(CLIPS, np.nan, np.float32)), "golden probe"
    ),
    "one answer for all clips": (
        probe(probabilities=np.zeros((1, 4), np.float32)), "golden probe"
    ),
    "other clips": (probe(waveform=np.zeros((CLIPS, 16_000), np.float32)), "golden probe"),
    "no clips": (
        probe(waveform=np.zeros((0, 16_000), np.float32), lengths=np.zeros(0, np.int64)),
        "does not run on its probe",
    ),
    "flat clips": (probe(waveform=np.zeros(16_000, np.float32)), "does not run on its probe"),
    "in double precision": (probe(waveform=np.zeros((CLIPS, 16_000))), "does not run on its probe"),
    "seven emotions": (
        probe(probabilities=np.zeros((CLIPS, 7), np.float32)), "does not run on its probe"
    ),
    "lengths of nothing": (probe(lengths=np.zeros(CLIPS, np.int64)), "its probe"),
    "lengths below nothing": (probe(lengths=np.full(CLIPS, -(2**40))), "its probe"),
}  # fmt: skip


@pytest.mark.parametrize("name", PROBES)
def test_a_probe_that_is_not_met_is_refused(bundle: Bundle, name: str) -> None:
    data, said = PROBES[name]
    write_signed(bundle.path, "probe.npz", data)
    with pytest.raises(BundleError, match=said):
        Model(bundles.load(bundle.path))


def test_more_labels_than_logits_are_refused(tmp_path: Path) -> None:
    bundle = write_tiny_bundle(tmp_path / "bundle", labels=(*LABELS, "fear"))
    with pytest.raises(BundleError, match=r"its card names 5 emotions\.$"):
        Model(bundle)


def test_a_memory_of_another_width_is_refused(bundle: Bundle) -> None:
    memory = tiny_memory()
    wide = replace(memory, features=np.hstack([memory.features] * 2))
    write_signed(bundle.path, "memory.safetensors", memory_file(wide))
    with pytest.raises(BundleError, match=r"The memory .* holds 16 features .* graph has 8\.$"):
        Model(bundles.load(bundle.path))


def test_a_head_of_another_width_is_refused(bundle: Bundle) -> None:
    head = tiny_head()
    ones = np.ones(2 * WIDTH, np.float32)
    wide = replace(head, mean=ones, deviation=ones, weight=np.hstack([head.weight] * 2))
    write_signed(bundle.path, "head.safetensors", wide.to_bytes())
    with pytest.raises(BundleError, match=r"The head .* holds 16 features .* graph has 8\.$"):
        Model(bundles.load(bundle.path))


def test_a_memory_that_does_not_hold_together_is_refused(bundle: Bundle) -> None:
    memory = replace(tiny_memory(), emotion=np.full(40, 4))
    write_signed(bundle.path, "memory.safetensors", memory_file(memory))
    with pytest.raises(BundleError, match=r"has emotions 4 to 4; the card allows 0 to 3\.$"):
        Model(bundles.load(bundle.path))


def test_the_sound_of_a_failure_is_one_sentence(
    bundle: Bundle, capfd: pytest.CaptureFixture[str]
) -> None:
    graph = edited(tiny_files()["model.onnx"], _drop_output)
    write_signed(bundle.path, "model.onnx", graph)
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


def test_the_graph_alone_answers_as_the_documentation_shows(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (ROOT / "docs/research/bundle.md").read_text("utf-8")
    example = page.partition("```python\n")[2].partition("```")[0]
    assert len(list(filter(None, example.splitlines()))) == 6
    monkeypatch.chdir(bundle.path)
    clip = speechlike(1.0).astype(np.float32)
    soundfile.write("clip.wav", clip, 16_000, subtype="FLOAT")
    exec(example, {})
    expected = Model(bundle).score(clip).probabilities
    found = eval(capsys.readouterr().out, {"np": np})
    assert list(found) == list(LABELS)
    assert list(found.values()) == pytest.approx(expected.tolist(), abs=1e-5)


def resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="malloc is another's here")
def test_shrinking_returns_what_is_free_between_blocks_that_stay(bundle: Bundle) -> None:
    session = open_session(bundle.path / "model.onnx")
    shrink_arena(session)
    before = resident_mib()
    blocks = [bytearray(b"x" * 100_000) for _ in range(600)]  # malloc maps none of these alone
    stay = blocks[::20]
    del blocks
    assert resident_mib() - before > 40
    shrink_arena(session)
    assert resident_mib() - before < 20
    assert len(stay) == 30


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_sessions_share_an_arena_that_keeps_memory_until_it_is_shrunk() -> None:
    """A graph of 4,096 x 4,096 numbers: 64 MiB that no caller sees."""
    nodes = [
        helper.make_node("Transpose", ["waveform"], ["column"]),
        helper.make_node("MatMul", ["column", "waveform"], ["products"]),
        helper.make_node("ReduceMax", ["products"], ["most"], keepdims=0),
        helper.make_node("Identity", ["lengths"], ["same"]),
    ]
    numbers, count = TensorProto.FLOAT, TensorProto.INT64
    inputs = [
        helper.make_tensor_value_info("waveform", numbers, [1, None]),
        helper.make_tensor_value_info("lengths", count, [1]),
    ]
    outputs = [
        helper.make_tensor_value_info("most", numbers, []),
        helper.make_tensor_value_info("same", count, [1]),
    ]
    graph = helper.make_graph(nodes, "products", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    one, other = (open_session(model.SerializeToString()) for _ in range(2))
    feeds = {"waveform": np.full((1, 4_096), 2.0, np.float32), "lengths": np.array([4_096])}

    shrink_arena(one)
    before = resident_mib()
    assert one.run(["most"], feeds)[0] == 4.0
    kept = resident_mib() - before
    assert kept > 48
    assert other.run(["most"], feeds)[0] == 4.0
    assert resident_mib() - before < kept + 32  # not the same again
    shrink_arena(other)
    assert resident_mib() - before < 32
    assert one.run(["most"], feeds)[0] == 4.0
