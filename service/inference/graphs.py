"""The ONNX graphs of a bundle as two calls, checked against its golden probe.

The golden probe is a pair of clips with the logits and embeddings that the graphs gave when the
bundle was made. A bundle whose graphs give others on this machine is not used.
"""

from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from .bundle import Bundle
from .errors import BundleError

Floats = NDArray[np.float32]

_PROBE_TOLERANCE = 1e-3  # in probability; kernels of other processors differ by about 1e-5


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
    """Encoder and head of one bundle on ONNX Runtime; calls may come from many threads.

    Args:
        bundle: a loaded bundle.
        threads: used by one inference; 1 leaves the cores to other requests.

    Raises:
        BundleError: if the graphs cannot run, or fail the golden probe.
    """

    def __init__(self, bundle: Bundle, *, threads: int = 1) -> None:
        self._model = _session(bundle.path / "model.onnx", threads, {"waveform", "lengths"})
        self._head = _session(bundle.path / "head.onnx", threads, {"embedding"})
        self.width = self._check(bundle)
        """D, the number of features of an embedding."""

    def run(self, waveform: Floats, lengths: NDArray[np.int64]) -> tuple[Floats, Floats]:
        """Run encoder and head on a padded batch.

        Args:
            waveform: float32 in [-1, 1] at 16 kHz, shape ``(batch, num_samples)``, 512 or longer.
            lengths: samples that are not padding, int64, shape ``(batch,)``; 512 or more.

        Returns:
            Logits ``(batch, num_emotions)`` and embeddings ``(batch, D)``.
        """
        logits, embedding = self._model.run(
            ["logits", "embedding"], {"waveform": waveform, "lengths": lengths}
        )
        return logits, embedding

    def project(self, embedding: Floats) -> Floats:
        """Map embeddings to the features that the memory compares.

        Args:
            embedding: pooled features, shape ``(n, D)``.

        Returns:
            Unit features, shape ``(n, width)``.
        """
        projection: Floats = self._head.run(["projection"], {"embedding": embedding})[0]
        return projection

    def _check(self, bundle: Bundle) -> int:
        """Run the golden probe; return D."""
        probe = bundle.probe()
        try:
            logits, embedding = self.run(probe["waveform"], probe["lengths"].astype(np.int64))
            head_logits, _ = self._head.run(["logits", "projection"], {"embedding": embedding})
            expected = softmax(probe["logits"])
            difference = float(np.abs(softmax(np.stack([logits, head_logits])) - expected).max())
            width = int(embedding.shape[1])
        except Exception as error:  # ONNX Runtime has a dozen types, which all mean the same here
            raise BundleError(f"The graphs of {bundle.path} do not run on its probe.") from error
        if logits.shape != (len(embedding), len(bundle.labels)):
            raise BundleError(
                f"The graphs of {bundle.path} give logits of shape {logits.shape}; its card names "
                f"{len(bundle.labels)} emotions."
            )
        if not difference <= _PROBE_TOLERANCE:  # true for NaN, too
            raise BundleError(
                f"{bundle.path} fails its golden probe: probabilities differ by "
                f"{difference:.2g}, at most {_PROBE_TOLERANCE:g} is allowed."
            )
        return width


def open_session(path: Path, threads: int = 1) -> onnxruntime.InferenceSession:
    """Open a graph on the CPU, set up to keep no memory and no spinning threads.

    Args:
        path: an ONNX file.
        threads: used by one inference.

    Raises:
        BundleError: if ONNX Runtime cannot read it.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Otherwise the memory of one long clip is never given back, and idle threads spin.
    options.enable_cpu_mem_arena = False
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # as in Model._check
        raise BundleError(f"{path} is not a graph that ONNX Runtime can read.") from error


def _session(path: Path, threads: int, inputs: set[str]) -> onnxruntime.InferenceSession:
    session = open_session(path, threads)
    names = {argument.name for argument in session.get_inputs()}
    if names != inputs:
        raise BundleError(
            f"{path} has the inputs {', '.join(sorted(names))}; "
            f"it must have {', '.join(sorted(inputs))}."
        )
    return session
