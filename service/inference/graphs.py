"""The ONNX graph of a bundle as a call, checked against its golden probe.

The golden probe holds clips with the answers that the graph gave when the bundle was made. A bundle
whose graph gives others on this machine is not used.
"""

import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from ..system import OWN_PAGES_BYTES, return_memory
from .answer import Neighbour
from .bundle import Bundle, Memory
from .device import Batches, Device, float_graph
from .errors import BundleError
from .head import Head

Floats = NDArray[np.float32]

_PROBE_TOLERANCE = 1e-2
"""In probability. Kernels of other processors differ by 1e-5 in a sum, which may move a value in
int8 to the next step, a 255th of its range."""

_FLOAT_TOLERANCE = 0.1
"""The same of a graph that was freed of its integers, for the answers of one that was not: 0.03 in
both bundles of the release."""

_TOGETHER = 16
"""Windows of a recording that are given to a device at a time; it bounds memory, 1 MiB each."""

_PROCESSOR = "CPUExecutionProvider"


class Outputs(NamedTuple):
    """What a graph gives for the rows of a batch.

    Attributes:
        probabilities: calibrated, the memory's vote included, shape ``(batch, num_emotions)``.
        out_of_domain: distance from the source, mapped to [0, 1], shape ``(batch,)``.
        embedding: pooled features, shape ``(batch, D)``.
        logits: of the classifier, shape ``(batch, num_emotions)``.
    """

    probabilities: Floats
    out_of_domain: Floats
    embedding: Floats
    logits: Floats


class Score(NamedTuple):
    """What a model says of one window.

    Attributes:
        probabilities: shape ``(num_emotions,)``; sums to 1.
        out_of_domain: in [0, 1].
        embedding: by which :meth:`Model.nearest` finds neighbours, shape ``(D,)``.
    """

    probabilities: Floats
    out_of_domain: float
    embedding: Floats


def softmax(logits: Floats) -> Floats:
    """Probabilities along the last axis.

    Args:
        logits: shape ``(…, num_emotions)``; -inf gives 0, but not all of a row may be -inf.

    Returns:
        The same shape; rows sum to 1.

    Examples:
        >>> softmax(np.log(np.array([1.0, 3.0], np.float32))).round(2).tolist()
        [0.25, 0.75]
    """
    exponent = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probabilities: Floats = exponent / exponent.sum(axis=-1, keepdims=True)
    return probabilities


class Model:
    """The graph of one bundle on ONNX Runtime; calls may come from many threads.

    Args:
        bundle: a loaded bundle.
        threads: used by one inference; 1 leaves the cores to other requests.
        device: runs clips in batches; None for the processor, which takes each alone.

    Raises:
        BundleError: if the graph cannot run, fails the golden probe, or head and memory do not fit.
    """

    outputs: tuple[str, ...] = Outputs._fields
    """Names of what :meth:`run` gives to users of the Open Inference Protocol."""

    def __init__(self, bundle: Bundle, *, threads: int = 1, device: Device | None = None) -> None:
        self._bundle = bundle
        path, inputs = bundle.path / "model.onnx", {"waveform", "lengths"}
        self._batches: Batches | None = None
        allowed = _PROBE_TOLERANCE
        if device is None:
            self._session = checked_session(path, threads, inputs)
        else:
            graph = float_graph(path)
            self._session = checked_session(path, threads, inputs, graph, device.providers)
            self._batches = Batches(self._run_batch, device.on_batch)
            if graph is not path:
                allowed = _FLOAT_TOLERANCE
        self.width = self._check(allowed)
        """D, the number of features of an embedding."""
        self._require_fit()
        self._opened: tuple[Memory, Head, Floats] | None = None
        self._opening = threading.Lock()

    def run(self, waveform: Floats, lengths: NDArray[np.int64]) -> Outputs:
        """Score the rows of a padded batch, each without its padding, and on a processor alone.

        So a clip's answer does not depend on its batch: integer arithmetic takes its scale from all
        that is in a tensor.

        Args:
            waveform: float32 in [-1, 1] at 16 kHz, shape ``(batch, num_samples)``, 512 or longer.
            lengths: samples that are not padding, int64, shape ``(batch,)``; 512 or more.
        """
        if self._batches is None:
            return run_rows(self._session, waveform, lengths)
        clips = [row[:length] for row, length in zip(waveform, lengths, strict=True)]
        rows = self._batches.score(clips)
        return Outputs(*(np.stack(parts) for parts in zip(*rows, strict=True)))

    def score(self, samples: Floats) -> Score:
        """Score one window.

        Args:
            samples: float32 in [-1, 1] at 16 kHz, shape ``(num_samples,)``, 512 or longer.
        """
        if self._batches is not None:
            return next(self.score_each([samples]))
        inputs = {"waveform": samples[None], "lengths": np.array([len(samples)], np.int64)}
        probabilities, out_of_domain, embedding = self._session.run(Score._fields, inputs)
        return Score(probabilities[0], float(out_of_domain[0]), embedding[0])

    def score_each(self, clips: Iterable[Floats]) -> Iterator[Score]:
        """Score windows in order; a device takes several at a time.

        Args:
            clips: of each window what :meth:`score` takes; read as they are needed.
        """
        if self._batches is None:
            yield from map(self.score, clips)
            return
        clips = iter(clips)
        while several := list(islice(clips, _TOGETHER)):
            for probabilities, out_of_domain, embedding, _ in self._batches.score(several):
                yield Score(probabilities, float(out_of_domain), embedding)

    @property
    def provider(self) -> str:
        """What ONNX Runtime runs the graph with."""
        return str(self._session.get_providers()[0])

    def release(self) -> None:
        """Return the memory that long windows took and the next would take again."""
        if self._batches is None:
            shrink_arena(self._session)

    def nearest(self, embedding: Floats, count: int) -> tuple[Neighbour, ...]:
        """Find the most similar source utterances; the first call opens head and memory.

        Args:
            embedding: of one clip, or the mean of several, shape ``(D,)``.
            count: how many; all there are, if there are fewer.

        Returns:
            Nearest first.

        Raises:
            BundleError: if head or memory have been damaged since the bundle was loaded.
        """
        if count == 0:
            return ()
        memory, head, slots = self._open()
        projection = head.project(head.standardise(embedding[None].astype(np.float32)))[0]
        return neighbours(projection @ slots.T, memory, self._bundle.labels, count)

    def _open(self) -> tuple[Memory, Head, Floats]:
        """Read memory and head, once; return them, and the slots' projections."""
        with self._opening:
            if self._opened is None:
                memory, head = self._bundle.memory(), self._bundle.head()
                slots = head.project(memory.features)
                # the features, sixteen times as large, are needed no longer
                memory = replace(memory, features=memory.features[:0])
                self._opened = memory, head, slots
            return self._opened

    def _run_batch(self, waveform: Floats, lengths: NDArray[np.int64]) -> Sequence[Floats]:
        inputs = {"waveform": waveform, "lengths": lengths}
        found: Sequence[Floats] = self._session.run(list(Outputs._fields), inputs)
        return found

    def _check(self, tolerance: float) -> int:
        """Run the golden probe; return D."""
        bundle = self._bundle
        probe = bundle.probe()
        try:
            found = self.run(probe["waveform"], probe["lengths"].astype(np.int64))
            differences = [
                np.abs(found.probabilities - probe["probabilities"]).max(),
                np.abs(found.out_of_domain - probe["out_of_domain"]).max(),
            ]
            difference = float(np.max(differences))  # NaN if one is
            shapes = [array.shape for array in found]
            width = int(found.embedding.shape[1])
        except Exception as error:  # ONNX Runtime has a dozen types, which all mean the same here
            raise BundleError(f"The graph of {bundle.path} does not run on its probe.") from error
        count, emotions = len(probe["waveform"]), len(bundle.labels)
        if shapes != [(count, emotions), (count,), (count, width), (count, emotions)]:
            described = ", ".join(f"{k} {v}" for k, v in zip(self.outputs, shapes, strict=True))
            raise BundleError(
                f"The graph of {bundle.path} gives {described} for {count} clips; its card names "
                f"{emotions} emotions."
            )
        require_probe(bundle, difference, tolerance)
        return width

    def _require_fit(self) -> None:
        """Read head and memory once, and keep neither: what does not fit is refused at once."""
        path, head, memory = self._bundle.path, self._bundle.head(), self._bundle.memory()
        for what, width in (("head", head.weight.shape[1]), ("memory", memory.features.shape[1])):
            if width != self.width:
                raise BundleError(
                    f"The {what} of {path} holds {width} features per utterance; its graph has "
                    f"{self.width}."
                )


def run_rows(
    session: onnxruntime.InferenceSession, waveform: Floats, lengths: NDArray[np.int64]
) -> Outputs:
    """Run a graph on the rows of a batch as :meth:`Model.run` does."""
    rows = [
        session.run(
            list(Outputs._fields), {"waveform": row[None, :length], "lengths": lengths[i : i + 1]}
        )
        for i, (row, length) in enumerate(zip(waveform, lengths, strict=True))
    ]
    return Outputs(*(np.concatenate(parts) for parts in zip(*rows, strict=True)))


def neighbours(
    similarities: Floats, memory: Memory, labels: tuple[str, ...], count: int
) -> tuple[Neighbour, ...]:
    """List the slots that are most similar.

    Args:
        similarities: cosine per slot of the memory, shape ``(num_slots,)``.
        memory: what the slots are.
        labels: emotions in the order of the logits.
        count: how many; all there are, if there are fewer.

    Returns:
        Nearest first.
    """
    return tuple(
        Neighbour(
            emotion=labels[memory.emotion[slot]],
            similarity=float(np.clip(similarities[slot], -1.0, 1.0)),
            corpus=memory.corpus[slot],
            language=memory.language[slot],
        )
        for slot in np.argsort(-similarities, kind="stable")[:count]
    )


def require_probe(bundle: Bundle, difference: float, allowed: float) -> None:
    """Refuse a graph whose answers are not those of the golden probe.

    Raises:
        BundleError: if they differ by more than is allowed, in probability, or are not numbers.
    """
    if not difference <= allowed:  # true for NaN, too
        raise BundleError(
            f"{bundle.path} fails its golden probe: probabilities differ by "
            f"{difference:.2g}, at most {allowed:g} is allowed."
        )


def open_session(
    graph: Path | bytes, threads: int = 1, providers: Sequence[Any] = (_PROCESSOR,)
) -> onnxruntime.InferenceSession:
    """Open a graph, set up to share memory and to keep no spinning threads.

    Args:
        graph: an ONNX file, or its contents.
        threads: used by one inference.
        providers: that run it, with their options; the processor by default.

    Raises:
        BundleError: if ONNX Runtime cannot read it.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    if tuple(providers) == (_PROCESSOR,):
        _share_arena()
        options.add_session_config_entry("session.use_env_allocators", "1")
    else:  # a device has memory of its own
        options.enable_cpu_mem_arena = False
    # A pattern is one block for all that a run needs, which is mapped anew for each length.
    options.enable_mem_pattern = False
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    source = graph if isinstance(graph, bytes) else str(graph)
    try:
        return onnxruntime.InferenceSession(source, options, providers=list(providers))
    except Exception as error:  # as in Model._check
        name = "This" if isinstance(graph, bytes) else str(graph)
        raise BundleError(f"{name} is not a graph that ONNX Runtime can read.") from error


_WASTED_BYTES = 256 << 10
"""What a tensor may leave unused at the end of its place. ONNX Runtime would leave 128 MiB, and
windows of ever new lengths need ever new places: 300 MiB after 800 in two threads, not 205."""

_arena_lock = threading.Lock()
_arena_shared = False


def _share_arena() -> None:
    """Let the sessions of this process take memory from one arena, and not each from its own.

    It grows by blocks that malloc maps alone, and so returns to the system.
    """
    global _arena_shared
    with _arena_lock:
        if _arena_shared:
            return
        kind, use = onnxruntime.OrtAllocatorType, onnxruntime.OrtMemType
        memory = onnxruntime.OrtMemoryInfo("Cpu", kind.ORT_ARENA_ALLOCATOR, 0, use.DEFAULT)
        growth = {
            "arena_extend_strategy": 0,  # by powers of two, as far as they are allowed to grow
            "initial_growth_chunk_size_bytes": OWN_PAGES_BYTES,
            "max_power_of_two_extend_bytes": OWN_PAGES_BYTES,
            "max_dead_bytes_per_chunk": _WASTED_BYTES,
        }
        onnxruntime.create_and_register_allocator(memory, onnxruntime.OrtArenaCfg(growth))
        _arena_shared = True


def shrink_arena(session: onnxruntime.InferenceSession) -> None:
    """Return what is free in the arena of all sessions to the system: run one on its least input.

    The arena returns its blocks to malloc, which is told to return them, too: they lie between
    others that stay, where it would keep their pages.

    Args:
        session: of a graph that takes ``waveform`` and ``lengths``.
    """
    options = onnxruntime.RunOptions()
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    least = np.zeros((1, 512), np.float32)
    session.run(None, {"waveform": least, "lengths": np.array([512], np.int64)}, options)
    return_memory()


def checked_session(
    path: Path,
    threads: int,
    inputs: set[str],
    graph: Path | bytes | None = None,
    providers: Sequence[Any] = (_PROCESSOR,),
) -> onnxruntime.InferenceSession:
    """Open a graph that has these inputs; ``graph`` is what its file was made into, if anything.

    Raises:
        BundleError: if ONNX Runtime cannot read it, or it has others.
    """
    session = open_session(graph or path, threads, providers)
    names = {argument.name for argument in session.get_inputs()}
    if names != inputs:
        raise BundleError(
            f"{path} has the inputs {', '.join(sorted(names))}; "
            f"it must have {', '.join(sorted(inputs))}."
        )
    return session
