"""The ONNX graphs of a bundle as two calls, checked against its golden probe."""

from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from .bundle import Bundle
from .errors import BundleError

Floats = NDArray[np.float32]

_PROBE_TOLERANCE = 1e-3  # in probability; kernels of other processors differ by about 1e-5


def softmax(logits: Floats) -> Floats:
    """Probabilities along the last axis."""
    exponent = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probabilities: Floats = exponent / exponent.sum(axis=-1, keepdims=True)
    return probabilities


class Model:
    """Encoder and head of one bundle on ONNX Runtime; calls may come from many threads.

    Args:
        bundle: a loaded bundle.
        threads: of one inference; 1 leaves the cores to the requests.

    Raises:
        BundleError: if the graphs cannot run, or answer the golden clips otherwise than they did
            when the bundle was made.
    """

    def __init__(self, bundle: Bundle, *, threads: int = 1) -> None:
        self._model = _session(bundle.path / "model.onnx", threads, {"waveform", "lengths"})
        self._head = _session(bundle.path / "head.onnx", threads, {"embedding"})
        self.width = self._check(bundle)
        """Features of one embedding: D."""

    def run(self, waveform: Floats, lengths: NDArray[np.int64]) -> tuple[Floats, Floats]:
        """Score a padded batch.

        Args:
            waveform: float32 in [-1, 1] at 16 kHz, shape ``(batch, num_samples)``, 512 or longer.
            lengths: samples that are not padding, int64, shape ``(batch,)``.

        Returns:
            Logits ``(batch, emotions)`` and embeddings ``(batch, D)``.
        """
        logits, embedding = self._model.run(
            ["logits", "embedding"], {"waveform": waveform, "lengths": lengths}
        )
        return logits, embedding

    def project(self, embedding: Floats) -> Floats:
        """Embeddings ``(n, D)`` to the unit features that the memory compares, ``(n, width)``."""
        projection: Floats = self._head.run(["projection"], {"embedding": embedding})[0]
        return projection

    def _check(self, bundle: Bundle) -> int:
        probe = bundle.probe()
        try:
            logits, embedding = self.run(probe["waveform"], probe["lengths"].astype(np.int64))
            again, _ = self._head.run(["logits", "projection"], {"embedding": embedding})
            expected = softmax(probe["logits"])
            difference = float(np.abs(softmax(np.stack([logits, again])) - expected).max())
            width = int(embedding.shape[1])
        except Exception as error:  # ONNX Runtime raises its own kinds; all mean the same here
            raise BundleError(f"The graphs of {bundle.path} do not run on its probe.") from error
        if logits.shape != (len(embedding), len(bundle.labels)):
            raise BundleError(
                f"The graphs of {bundle.path} answer logits of shape {logits.shape}, "
                f"and its card names {len(bundle.labels)} emotions."
            )
        if not difference <= _PROBE_TOLERANCE:  # nor if it is not a number
            raise BundleError(
                f"{bundle.path} fails its golden probe: probabilities differ by "
                f"{difference:.2g}, at most {_PROBE_TOLERANCE:g} is allowed."
            )
        return width


def open_session(path: Path, threads: int = 1) -> onnxruntime.InferenceSession:
    """Open a graph on the CPU, as frugal as a service needs it.

    Args:
        path: an ONNX file.
        threads: of one inference.

    Raises:
        BundleError: if ONNX Runtime does not read it.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # One long clip would otherwise hold its memory for good, and idle threads would spin.
    options.enable_cpu_mem_arena = False
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime raises its own kinds; all mean the same here
        raise BundleError(f"{path} is not a graph that ONNX Runtime reads.") from error


def _session(path: Path, threads: int, inputs: set[str]) -> onnxruntime.InferenceSession:
    session = open_session(path, threads)
    found = {argument.name for argument in session.get_inputs()}
    if found != inputs:
        raise BundleError(f"{path} takes {sorted(found)}, and {sorted(inputs)} is wanted.")
    return session
