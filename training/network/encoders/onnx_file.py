"""Any ONNX file as a frozen encoder: waveform to frames, or to one vector per clip."""

import base64
from pathlib import Path
from typing import Self

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

from ...errors import TrainingError
from .encoder import Encoder, Sizes

_LARGEST = 256 << 20
_TRIAL = 16_000


class OnnxFile(Encoder):
    """A graph with one input ``(batch, samples)``, and perhaps the lengths; it is not trained.

    Its first output must be frames ``(batch, num_frames, width)`` or vectors ``(batch, width)``.
    Clips run one by one, without padding, so nothing is asked of the graph about masks.

    Args:
        sizes: ``graph``, the file in base64, and ``width``.
    """

    family = "onnx"

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.graph = base64.b64decode(sizes["graph"])
        try:
            self.session = onnxruntime.InferenceSession(
                self.graph, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime has a dozen types, which all mean the same here
            raise TrainingError(f"ONNX Runtime cannot read the encoder: {error}") from None
        self.inputs = [argument.name for argument in self.session.get_inputs()]
        self.width = self._try()

    @classmethod
    def pretrained(cls, folder: Path, layers: int) -> Self:
        """Read a file ``*.onnx``, or the only one in a folder; ``layers`` must be 0."""
        if layers:
            raise TrainingError(f"encoder.layers is {layers}; an ONNX file is taken whole: set 0")
        files = sorted(folder.glob("*.onnx")) if folder.is_dir() else [folder]
        if len(files) != 1:
            raise TrainingError(f"{folder} holds {len(files)} files *.onnx; it must hold 1")
        try:
            graph = files[0].read_bytes()
        except OSError as error:
            raise TrainingError(f"{files[0]} cannot be read: {error.strerror}") from None
        if len(graph) > _LARGEST:
            raise TrainingError(
                f"{files[0]} has {len(graph):,} bytes; at most {_LARGEST:,} are allowed"
            )
        return cls({"graph": base64.b64encode(graph).decode("ascii")})

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

    def _run(self, samples: np.ndarray) -> np.ndarray:
        given = {self.inputs[0]: samples[None].astype(np.float32)}
        if len(self.inputs) > 1:
            given[self.inputs[1]] = np.array([len(samples)], np.int64)
        found: np.ndarray = self.session.run(None, given)[0]
        return found.reshape(-1, found.shape[-1]).astype(np.float32)

    def _try(self) -> int:
        if len(self.inputs) > 2:
            raise TrainingError(
                f"the encoder has the inputs {', '.join(self.inputs)}; it must have a waveform, "
                "and may have lengths"
            )
        try:
            frames = self._run(np.zeros(_TRIAL, np.float32))
        except Exception as error:  # as above
            raise TrainingError(
                f"the encoder does not run on a second of silence: {str(error).splitlines()[0]}"
            ) from None
        if not np.isfinite(frames).all():
            raise TrainingError("the encoder gives numbers that are not finite for silence")
        return int(frames.shape[1])
