"""Any ONNX file as a frozen encoder: waveform to frames, or to one vector per clip."""

import base64
from pathlib import Path
from typing import Any, Self

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ...errors import TrainingError
from .encoder import Encoder, Sizes

_LARGEST_BYTES = 256 << 20
_LEAST_OPSET = 13
_TRIAL = 16_000


class OnnxFile(Encoder):
    """A graph with an input ``(batch, samples)``, and perhaps the lengths; it is not trained.

    Its first output must be frames ``(batch, num_frames, width)`` or vectors ``(batch, width)``.
    Clips run one by one, without padding, so nothing is asked of the graph about masks.

    Args:
        sizes: ``graph``, the file in base64.

    Attributes:
        waveform: name of the input for samples.
        lengths: name of the input for the number of samples, or None.
    """

    family = "onnx"
    files = ("*.onnx",)

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.graph = base64.b64decode(sizes["graph"])
        try:
            self.session = onnxruntime.InferenceSession(
                self.graph, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime has a dozen types, which all mean the same here
            raise TrainingError(
                f"ONNX Runtime cannot read the encoder: {_first_line(error)}"
            ) from None
        self.waveform, self.lengths = self._inputs()
        self.width = self._try()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """The same object: it never changes, and a session cannot be copied."""
        return self

    @classmethod
    def pretrained(cls, folder: Path, layers: int) -> Self:
        """Read a file ``*.onnx``, or the only one in a folder; ``layers`` must be 0."""
        if layers:
            raise TrainingError(f"encoder.layers is {layers}; an ONNX file is taken whole: set 0")
        files = sorted(folder.glob("*.onnx")) if folder.is_dir() else [folder]
        if len(files) != 1:
            raise TrainingError(f"{folder} holds {len(files)} files *.onnx; it must hold 1")
        try:
            num_bytes = files[0].stat().st_size
            if num_bytes > _LARGEST_BYTES:
                raise TrainingError(
                    f"{files[0]} has {num_bytes:,} bytes; at most {_LARGEST_BYTES:,} are allowed"
                )
            graph = files[0].read_bytes()
        except OSError as error:
            raise TrainingError(f"{files[0]} cannot be read: {error.strerror}") from None
        encoder = cls({"graph": base64.b64encode(graph).decode("ascii")})
        opsets = onnx.load_from_string(graph).opset_import
        opset = max((o.version for o in opsets if o.domain in ("", "ai.onnx")), default=0)
        if opset < _LEAST_OPSET:  # said now, and not by the export after the training
            raise TrainingError(
                f"{files[0]} is of opset {opset}; at least {_LEAST_OPSET} is required: convert it "
                "by onnx.version_converter"
            )
        return encoder

    @classmethod
    def build(cls, sizes: Sizes) -> Self:
        """As the class itself."""
        return cls(sizes)

    def forward(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Frames as the graph gives them; a vector is one frame."""
        rows = [
            torch.from_numpy(self._run(row[: int(length)].cpu().numpy()))
            for row, length in zip(waveform, lengths, strict=True)
        ]
        frames = nn.utils.rnn.pad_sequence(rows, batch_first=True).to(waveform.device)
        counts = torch.tensor([len(row) for row in rows], device=waveform.device)
        return frames, torch.arange(frames.shape[1], device=waveform.device) < counts[:, None]

    def stages(self) -> list[list[nn.Parameter]]:
        """None: the graph is frozen."""
        return []

    def _run(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        given = {self.waveform: samples[None].astype(np.float32)}
        if self.lengths is not None:
            given[self.lengths] = np.array([len(samples)], np.int64)
        found: NDArray[np.float32] = self.session.run(None, given)[0]
        return found.reshape(-1, found.shape[-1])

    def _inputs(self) -> tuple[str, str | None]:
        inputs = self.session.get_inputs()
        waveforms = [one.name for one in inputs if one.type == "tensor(float)"]
        lengths = [one.name for one in inputs if one.type == "tensor(int64)"]
        if len(waveforms) != 1 or len(lengths) > 1 or len(waveforms) + len(lengths) < len(inputs):
            found = ", ".join(f"{one.name} {one.type}" for one in inputs) or "none"
            raise TrainingError(
                f"the encoder has the inputs {found}; it must have a waveform, tensor(float), and "
                "may have lengths, tensor(int64)"
            )
        return waveforms[0], next(iter(lengths), None)

    def _try(self) -> int:
        """Run a second of silence; return the width."""
        output = self.session.get_outputs()[0]
        if output.type != "tensor(float)":
            raise TrainingError(f"the encoder gives {output.type}; it must give tensor(float)")
        try:
            found = self.session.run(None, self._trial())[0]
        except Exception as error:  # as above
            raise TrainingError(
                f"the encoder does not run on a second of silence: {_first_line(error)}"
            ) from None
        if found.ndim not in (2, 3) or len(found) != 1 or 0 in found.shape:
            raise TrainingError(
                f"the encoder gives the shape {found.shape} for one clip; it must give "
                "(1, num_frames, width) or (1, width)"
            )
        if not np.isfinite(found).all():
            raise TrainingError("the encoder gives numbers that are not finite for silence")
        return int(found.shape[-1])

    def _trial(self) -> dict[str, NDArray[Any]]:
        given: dict[str, NDArray[Any]] = {self.waveform: np.zeros((1, _TRIAL), np.float32)}
        if self.lengths is not None:
            given[self.lengths] = np.array([_TRIAL], np.int64)
        return given


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
