"""Batches of a GPU, on the processor: nothing of their logic needs one."""

import importlib.util
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from nnpm.service.inference import bundle as bundles
from nnpm.service.inference import device
from nnpm.service.inference.answer import Options
from nnpm.service.inference.audio.decode import decode
from nnpm.service.inference.device import MOST_CLIPS, Batches, Device, cuda, float_graph
from nnpm.service.inference.errors import AbandonedError, ExtraMissingError, abandonable
from nnpm.service.inference.graphs import Model, open_session
from nnpm.service.inference.recognizer import Recognizer
from tests.support.sounds import encode, speechlike
from tests.support.tiny_bundle import write_first_bundle, write_tiny_bundle

BUNDLE = Path(__file__).parents[3] / "models/default/2"
PROCESSOR = ("CPUExecutionProvider",)
Array = NDArray[np.float32]

needs_onnx = pytest.mark.skipif(
    importlib.util.find_spec("onnx") is None, reason="the extra device brings onnx"
)


class Runs:
    """A graph that gives each row's sum, and holds each run until it is let go."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []
        self.counts: list[int] = []
        self.held = threading.Event()
        self.go = threading.Event()
        self.go.set()
        self.fails: Callable[[Array], bool] = lambda _: False

    def __call__(self, waveform: Array, lengths: NDArray[np.int64]) -> Sequence[Array]:
        self.shapes.append(waveform.shape)
        self.held.set()
        assert self.go.wait(30)
        if self.fails(waveform):
            raise ValueError("a clip that the graph cannot take")
        rows = zip(waveform, lengths, strict=True)
        return [np.array([row[:length].sum() for row, length in rows]), lengths]

    def batches(self) -> Batches:
        return Batches(self, self.counts.append)


@pytest.fixture
def runs() -> Runs:
    return Runs()


def clip(seconds: float, value: float = 1.0) -> Array:
    return np.full(round(seconds * 16_000), value, np.float32)


def wait_for_waiting(batches: Batches, count: int) -> None:
    while len(batches._waiting) < count:
        time.sleep(0.001)


def test_a_clip_alone_runs_at_once(runs: Runs) -> None:
    (found,) = runs.batches().score([clip(0.5)])
    assert found == (8000.0, 8000)
    assert runs.shapes == [(1, 16_000)]


def test_what_comes_during_a_run_is_run_together_and_split_again(runs: Runs) -> None:
    batches = runs.batches()
    runs.go.clear()
    with ThreadPoolExecutor(32) as pool:
        first = pool.submit(batches.score, [clip(1, 1.0)])
        assert runs.held.wait(30)
        values = [float(number) for number in range(2, 14)]
        later = [pool.submit(batches.score, [clip(0.5 + value / 100, value)]) for value in values]
        wait_for_waiting(batches, len(later))
        runs.go.set()
        assert first.result()[0][0] == 16_000
        for value, future in zip(values, later, strict=True):
            total, length = future.result()[0]
            assert length == round((0.5 + value / 100) * 16_000)
            assert total == value * length
    assert runs.counts == [1, 12]
    assert runs.shapes[1] == (16, 16_000)  # a power of two


def test_lengths_have_buckets_and_batches_a_bound(runs: Runs) -> None:
    batches = runs.batches()
    runs.go.clear()
    lengths_s = [9.5] * 20 + [0.6, 5.0] * 40
    with ThreadPoolExecutor(len(lengths_s) + 1) as pool:
        first = pool.submit(batches.score, [clip(0.1)])
        assert runs.held.wait(30)
        later = []
        for number, seconds in enumerate(lengths_s):
            later.append(pool.submit(batches.score, [clip(seconds)]))
            wait_for_waiting(batches, number + 1)
        runs.go.set()
        first.result()
        for seconds, future in zip(lengths_s, later, strict=True):
            assert future.result()[0][1] == round(seconds * 16_000)
    # the one that waited longest decides whose turn it is; 16 of 10 s are the most that fit
    assert runs.shapes[1:3] == [(16, 160_000), (4, 160_000)]
    assert {length for _, length in runs.shapes} == {16_000, 96_000, 160_000}
    assert max(runs.counts) == MOST_CLIPS
    assert sum(runs.counts) == 101


def test_a_clip_longer_than_all_buckets_is_run(runs: Runs) -> None:
    ((total, _),) = runs.batches().score([clip(31)])
    assert (total, runs.shapes) == (31 * 16_000, [(1, 45 * 16_000)])


def test_one_call_may_bring_many_clips(runs: Runs) -> None:
    found = runs.batches().score([clip(1, value) for value in (3, 1, 2)])
    assert [total / 16_000 for total, _ in found] == [3, 1, 2]
    assert runs.counts == [3]
    assert runs.batches().score([]) == []


def test_a_clip_that_fails_fails_alone(runs: Runs) -> None:
    batches = runs.batches()
    runs.fails = lambda waveform: bool((waveform == 5).any())
    runs.go.clear()
    with ThreadPoolExecutor(16) as pool:
        first = pool.submit(batches.score, [clip(1)])
        assert runs.held.wait(30)
        later = [pool.submit(batches.score, [clip(1, value)]) for value in range(3, 9)]
        wait_for_waiting(batches, len(later))
        runs.go.set()
        first.result()
        for value, future in zip(range(3, 9), later, strict=True):
            if value == 5:
                with pytest.raises(ValueError, match="cannot take"):
                    future.result()
            else:
                assert future.result()[0][0] == value * 16_000
    assert batches.score([clip(1)])[0][0] == 16_000  # and the next is run


def test_an_interrupted_run_leaves_nobody_waiting(runs: Runs) -> None:
    batches = runs.batches()

    def interrupt(_: Array) -> bool:
        raise KeyboardInterrupt

    runs.fails = interrupt
    runs.go.clear()
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(batches.score, [clip(1)])
        assert runs.held.wait(30)
        later = [pool.submit(batches.score, [clip(1)]) for _ in range(2)]
        wait_for_waiting(batches, 2)
        runs.go.set()
        endings = [type(future.exception(30)) for future in (first, *later)]
    assert endings.count(KeyboardInterrupt) == 2  # the threads that ran
    assert endings.count(RuntimeError) == 1
    runs.fails = lambda _: False
    assert batches.score([clip(1)])[0][0] == 16_000


def test_a_clip_that_nobody_waits_for_is_not_run(runs: Runs) -> None:
    batches = runs.batches()
    runs.go.clear()

    def left() -> object:
        with abandonable() as abandoned:
            leaving.append(abandoned)
            return batches.score([clip(1, 7.0)])

    leaving: list[threading.Event] = []
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(batches.score, [clip(1)])
        assert runs.held.wait(30)
        gone, stays = pool.submit(left), pool.submit(batches.score, [clip(1, 2.0)])
        wait_for_waiting(batches, 2)
        leaving[0].set()
        runs.go.set()
        first.result()
        assert stays.result()[0][0] == 32_000
        with pytest.raises(AbandonedError):
            gone.result()
    assert runs.counts == [1, 1]


def test_many_threads_get_their_own_answers(runs: Runs) -> None:
    batches = runs.batches()

    def one(number: int) -> bool:
        seconds = 0.1 + number % 7
        clips = [clip(seconds, number + part) for part in range(1 + number % 3)]
        found = batches.score(clips)
        return all(
            (total, length) == (samples.sum(), len(samples))
            for (total, length), samples in zip(found, clips, strict=True)
        )

    with ThreadPoolExecutor(24) as pool:
        assert all(pool.map(one, range(300)))
    assert sum(runs.counts) == sum(1 + number % 3 for number in range(300))
    assert not batches._waiting


@pytest.fixture(scope="module")
def served() -> Recognizer:
    return Recognizer(bundles.load(BUNDLE))


@pytest.fixture(scope="module")
def batched() -> tuple[Recognizer, list[int]]:
    pytest.importorskip("onnx", reason="the extra device brings onnx")
    counts: list[int] = []
    return Recognizer(bundles.load(BUNDLE), device=Device(PROCESSOR, counts.append)), counts


LENGTHS_S = (0.05, 0.4, 1.0, 1.3, 2.2, 2.9, 3.5)


def test_an_answer_is_the_same_in_a_batch_and_alone(batched: tuple[Recognizer, list[int]]) -> None:
    model = batched[0].model
    assert isinstance(model, Model)
    clips = [speechlike(length).astype(np.float32) * 0.5**n for n, length in enumerate(LENGTHS_S)]
    clips = [np.pad(one, (0, max(0, 512 - len(one)))) for one in clips]
    alone = [
        model._session.run(None, {"waveform": one[None], "lengths": np.array([len(one)])})
        for one in clips
    ]
    together = list(model.score_each(clips))
    rows = max(map(len, clips))
    run = model.run(
        np.stack([np.pad(one, (0, rows - len(one)), constant_values=1) for one in clips]),
        np.array([len(one) for one in clips]),
    )
    for number, (expected, found) in enumerate(zip(alone, together, strict=True)):
        assert np.abs(expected[0][0] - found.probabilities).max() < 1e-3
        assert abs(float(expected[1][0]) - found.out_of_domain) < 1e-3
        assert np.abs(run.probabilities[number] - found.probabilities).max() < 1e-3
        assert np.abs(run.embedding[number] - found.embedding).max() < 1e-3


def test_float_activations_differ_little_from_integers(
    served: Recognizer, batched: tuple[Recognizer, list[int]]
) -> None:
    differences = []
    for length in (0.8, 1.7, 2.6):
        recording = decode(encode_file(speechlike(length)))
        before, after = (one.answer(recording) for one in (served, batched[0]))
        differences += [abs(before.scores[name] - after.scores[name]) for name in before.scores]
    assert np.mean(differences) < 0.02


def encode_file(samples: NDArray[np.float64]):  # type: ignore[no-untyped-def]
    import io

    return io.BytesIO(encode(samples))


@needs_onnx
def test_windows_of_a_recording_are_run_together(tmp_path: Path) -> None:
    bundle = write_tiny_bundle(tmp_path / "1")
    counts: list[int] = []
    alone, device = Recognizer(bundle), Recognizer(bundle, device=Device(PROCESSOR, counts.append))
    counts.clear()  # the probe's
    recording = decode(encode_file(speechlike(24)))
    options = Options(window_s=1.0, hop_s=1.0, abstain=False)
    expected, found = alone.answer(recording, options), device.answer(recording, options)
    assert len(found.segments) > 20
    for one, other in zip(expected.segments, found.segments, strict=True):
        assert (one.start_s, one.emotion) == (other.start_s, other.emotion)
        assert one.scores == pytest.approx(other.scores, abs=1e-3)
    assert sum(counts) == len(found.segments)
    assert max(counts) == 16  # which bounds the memory of a long recording
    assert device.score(speechlike(1).astype(np.float32)).probabilities.shape == (4,)


@needs_onnx
def test_the_freed_graph_has_no_integers_and_its_size(tmp_path: Path) -> None:
    import onnx

    data = float_graph(BUNDLE / "model.onnx")
    assert isinstance(data, bytes)
    operators = {node.op_type for node in onnx.load_from_string(data).graph.node}
    assert not operators & {"DynamicQuantizeLinear", "MatMulInteger"}
    assert len(data) < 4 * (BUNDLE / "model.onnx").stat().st_size
    open_session(data)


@needs_onnx
def test_a_graph_of_floats_is_left_as_it_is(tmp_path: Path) -> None:
    path = write_tiny_bundle(tmp_path / "1").path / "model.onnx"
    assert float_graph(path) is path
    path.write_bytes(b"no graph")
    assert float_graph(path) is path


@needs_onnx
def test_integers_of_another_kind_are_left_as_they_are(tmp_path: Path) -> None:
    import onnx

    path = tmp_path / "model.onnx"
    onnx.save(
        onnx.parser.parse_model(
            """<ir_version: 8, opset_import: ["": 17]> g (float[1] x) => (float[1] y) {
            q, scale, zero = DynamicQuantizeLinear (x)
            y = DequantizeLinear (q, scale, zero)
            }"""
        ),
        path,
    )
    assert float_graph(path) is path


def test_a_bundle_of_the_first_generation_stays_on_the_processor(tmp_path: Path) -> None:
    bundle = write_first_bundle(tmp_path / "1")
    recording = decode(encode_file(speechlike(2)))
    found = Recognizer(bundle, device=Device(("CUDAExecutionProvider",))).answer(recording)
    assert found.scores == Recognizer(bundle).answer(recording).scores


@needs_onnx
def test_the_processors_onnx_runtime_is_told_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        device.onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"]
    )
    with pytest.raises(ExtraMissingError, match=r"processor's: pip install 'nnpm\[device\]'"):
        cuda()


@needs_onnx
def test_a_machine_without_a_gpu_is_told_so(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(device.onnxruntime, "get_available_providers", lambda: [device._CUDA])
    monkeypatch.setattr(device.onnxruntime, "preload_dlls", lambda: None)
    real = onnxruntime.InferenceSession
    monkeypatch.setattr(
        device.onnxruntime, "InferenceSession", lambda graph, providers: real(graph)
    )
    with pytest.raises(ExtraMissingError, match="finds no GPU that it can use: nvidia-smi"):
        cuda()
    assert capfd.readouterr() == ("", "")


def test_on_a_gpu_answers_are_those_of_the_processor() -> None:
    try:
        gpu = cuda()
    except ExtraMissingError as error:
        pytest.skip(f"needs a GPU: {error}")
    model = Recognizer(bundles.load(BUNDLE), device=gpu).model
    same = Recognizer(bundles.load(BUNDLE), device=Device(PROCESSOR)).model
    assert model.provider == "CUDAExecutionProvider"
    clips = [speechlike(length).astype(np.float32) for length in LENGTHS_S[1:]]
    for one, other in zip(model.score_each(clips), same.score_each(clips), strict=True):
        assert np.abs(one.probabilities - other.probabilities).max() < 1e-3
