"""A GPU: the graph in floats, and clips of many threads run together.

One clip at a time leaves a GPU idle. Here each thread that scores a clip still calls and waits as
on a processor; the first to come runs its clip at once, and what comes meanwhile is run together
after it: so no clip waits for others to come, and batches are as large as the load.
"""

import contextvars
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from .audio.waveform import SAMPLE_RATE_HZ
from .errors import ExtraMissingError, check_abandoned

Floats = NDArray[np.float32]

BUCKETS_S = (1, 2, 3, 4, 6, 8, 10, 15)
"""Lengths that clips are padded to, so that the GPU sees few shapes; a longer clip gets a multiple
of the last."""

MOST_CLIPS = 32
"""Clips in a batch."""

MOST_S = 192
"""Seconds in a batch, padding included: 32 clips of 6 s. It bounds the memory of the GPU."""

_LENGTHS = tuple(seconds * SAMPLE_RATE_HZ for seconds in BUCKETS_S)

_INSTALL = (
    "pip install 'nnpm[device]', then pip install --force-reinstall --no-deps onnxruntime-gpu"
)
_CUDA = "CUDAExecutionProvider"


@dataclass(frozen=True, slots=True)
class Device:
    """What runs graphs in batches.

    Attributes:
        providers: of ONNX Runtime, with their options, the first choice first.
        on_batch: called with the number of clips of each run.
    """

    providers: Sequence[Any]
    on_batch: Callable[[int], object] = lambda _: None


def cuda(on_batch: Callable[[int], object] = lambda _: None) -> Device:
    """Make sure that there is a GPU of NVIDIA, and name it.

    Args:
        on_batch: called with the number of clips of each run.

    Raises:
        ExtraMissingError: if there is none that can be used; it says what to do.
    """
    try:
        import onnx
    except ImportError:
        raise ExtraMissingError(f"NNPM_DEVICE is cuda, and onnx is missing: {_INSTALL}.") from None
    if _CUDA not in onnxruntime.get_available_providers():
        raise ExtraMissingError(
            f"NNPM_DEVICE is cuda, and the ONNX Runtime installed is the processor's: {_INSTALL}."
        )
    one = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> g (float[1] x) => (float[1] y) {y = Identity(x)}'
    )
    # It explains in many lines what is missing, and goes on with the processor.
    onnxruntime.set_default_logger_severity(4)
    try:
        onnxruntime.preload_dlls()
        session = onnxruntime.InferenceSession(one.SerializeToString(), providers=[_CUDA])
    finally:
        onnxruntime.set_default_logger_severity(2)
    if _CUDA not in session.get_providers():
        raise ExtraMissingError(
            f"NNPM_DEVICE is cuda, and ONNX Runtime {onnxruntime.__version__} finds no GPU that it "
            "can use: nvidia-smi must list one, in a container started with --gpus all, and the "
            f"libraries of CUDA must be there: {_INSTALL}."
        )
    options = {
        # sums as on a processor, to 1e-6; a search for each shape would take longer than it saves
        "use_tf32": "0",
        "cudnn_conv_algo_search": "HEURISTIC",
        "arena_extend_strategy": "kSameAsRequested",
    }
    return Device([(_CUDA, options), "CPUExecutionProvider"], on_batch)


def float_graph(path: Path) -> Path | bytes:
    """Free a graph of integers that a GPU has no operators for: of dynamic quantisation.

    Each product takes the weights as they are in int8, and activations that are not rounded. The
    answers are those of float32 activations, and no longer depend on what else is in the batch.

    Args:
        path: an ONNX file.

    Returns:
        The new graph; the path, if there is nothing to free, or it is not as ours are.
    """
    import onnx
    from onnx import numpy_helper

    try:
        model = onnx.load(path)
    except Exception:  # ONNX Runtime says of it what is wrong
        return path
    graph = model.graph
    held = {tensor.name: tensor for tensor in graph.initializer}
    rounds = [node for node in graph.node if node.op_type == "DynamicQuantizeLinear"]
    integers = {node.output[0] for node in rounds}
    products = [node for node in graph.node if integers.intersection(node.input)]
    if not rounds or any(
        node.op_type != "MatMulInteger" or not held.keys() >= {node.input[1], *node.input[3:]}
        for node in products
    ):
        return path
    for node in rounds:
        node.op_type = "Identity"
        scale = numpy_helper.from_array(np.array(1, np.float32), node.output[1])
        del node.output[1:]
        graph.initializer.append(scale)
    for node in products:
        activations, integer, name = node.input[0], node.input[1], f"{node.output[0]}/weight"
        weight = numpy_helper.to_array(held[integer]).astype(np.float32)
        for zero in node.input[3:]:
            weight -= numpy_helper.to_array(held[zero])
        graph.initializer.append(numpy_helper.from_array(weight, name))
        node.op_type = "MatMul"
        del node.input[:]
        node.input.extend([activations, name])
        if integer in held and not any(integer in other.input for other in graph.node):
            graph.initializer.remove(held.pop(integer))
    return bytes(model.SerializeToString())


class _Clip:
    """One clip, and the call that waits for it."""

    __slots__ = ("context", "done", "error", "found", "samples", "wake")

    def __init__(
        self, samples: Floats, wake: threading.Event, context: contextvars.Context
    ) -> None:
        self.samples = samples
        self.wake = wake
        self.context = context
        self.done = False
        self.found: tuple[Floats, ...] = ()
        self.error: BaseException | None = None

    def end(self, found: tuple[Floats, ...] = (), error: BaseException | None = None) -> None:
        self.found, self.error, self.done = found, error, True
        self.wake.set()


class Batches:
    """Runs the clips of many threads together; it has no thread of its own.

    Args:
        run: gives the outputs of a batch, one row for each clip, for a waveform of shape
            ``(rows, num_samples)``, padded with zeros, and its lengths in samples. It is called by
            one thread at a time.
        on_batch: called with the number of clips of each run.
    """

    def __init__(
        self,
        run: Callable[[Floats, NDArray[np.int64]], Sequence[Floats]],
        on_batch: Callable[[int], object] = lambda _: None,
    ) -> None:
        self._run = run
        self._on_batch = on_batch
        self._lock = threading.Lock()  # guards the two that follow
        self._waiting: deque[_Clip] = deque()
        self._is_running = False

    def score(self, clips: Sequence[Floats]) -> list[tuple[Floats, ...]]:
        """Score clips, with those of other threads that have the same bucket.

        Args:
            clips: float32 in [-1, 1] at 16 kHz, 512 samples or longer each.

        Returns:
            For each clip, in order, its row of each output.

        Raises:
            AbandonedError: if nobody waits for the answer any more.
            Exception: the error of the first of these clips that has one; not another call's.
        """
        wake, context = threading.Event(), contextvars.copy_context()
        own = [_Clip(one, wake, context) for one in clips]
        with self._lock:
            self._waiting.extend(own)
        while not all(one.done for one in own):
            if batch := self._take():
                try:
                    self._score(batch)
                finally:
                    self._pass_on()
            else:
                wake.wait()
                wake.clear()
        for one in own:
            if one.error is not None:
                raise one.error
        return [one.found for one in own]

    def _take(self) -> list[_Clip]:
        """Take the clip that has waited longest, and those of its bucket; none while others run."""
        with self._lock:
            if self._is_running or not self._waiting:
                return []
            self._is_running = True
            length = padded_length(len(self._waiting[0].samples))
            fitting = max(1, MOST_S * SAMPLE_RATE_HZ // length)
            most = min(MOST_CLIPS, 1 << (fitting.bit_length() - 1))
            batch: list[_Clip] = []
            left: deque[_Clip] = deque()
            for one in self._waiting:
                fits = len(batch) < most and padded_length(len(one.samples)) == length
                (batch if fits else left).append(one)
            self._waiting = left
            return batch

    def _pass_on(self) -> None:
        """Let another thread run: that of the clip which has waited longest."""
        with self._lock:
            self._is_running = False
            if self._waiting:
                self._waiting[0].wake.set()

    def _score(self, batch: list[_Clip]) -> None:
        """Score clips of one bucket; if that fails, each alone, so that none spoils the others."""
        wanted = [one for one in batch if _is_wanted(one)]
        try:
            for one, found in zip(wanted, self._rows(wanted), strict=True):
                one.end(found)
        except Exception as error:
            if len(wanted) == 1:
                wanted[0].end(error=error)
                return
            for one in wanted:
                self._score([one])
        finally:
            for one in batch:  # whatever happened, nobody waits for ever
                if not one.done:
                    one.end(error=RuntimeError("the run was interrupted"))

    def _rows(self, batch: list[_Clip]) -> Iterator[tuple[Floats, ...]]:
        """Run a batch, padded to its bucket and to a power of two of rows."""
        if not batch:
            return iter(())
        lengths = np.array([len(one.samples) for one in batch], np.int64)
        num_rows = 1 << (len(batch) - 1).bit_length()
        waveform = np.zeros((num_rows, padded_length(int(lengths.max()))), np.float32)
        for row, one in zip(waveform, batch, strict=False):
            row[: len(one.samples)] = one.samples
        waveform[len(batch) :] = waveform[0]
        lengths = np.concatenate([lengths, np.repeat(lengths[:1], num_rows - len(batch))])
        outputs = self._run(waveform, lengths)
        self._on_batch(len(batch))
        return zip(*(output[: len(batch)] for output in outputs), strict=True)


def padded_length(num_samples: int) -> int:
    """The length that a clip is padded to, in samples.

    Examples:
        >>> [padded_length(seconds * 16_000) // 16_000 for seconds in (1, 5, 15, 16)]
        [1, 6, 15, 30]
    """
    last = _LENGTHS[-1]
    return next((one for one in _LENGTHS if num_samples <= one), -(-num_samples // last) * last)


def _is_wanted(clip: _Clip) -> bool:
    """Whether somebody still waits for a clip; if not, it is done."""
    try:
        clip.context.run(check_abandoned)
    except Exception as error:
        clip.end(error=error)
        return False
    return True
