"""Encoders of ``transformers`` that take the waveform: wav2vec 2.0, HuBERT, WavLM and kin."""

from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from ...errors import TrainingError
from .encoder import Encoder, Sizes, fewer, fill, read_config, read_tensors, size

MODEL_TYPES = ("wav2vec2", "hubert", "wavlm", "data2vec-audio", "unispeech", "unispeech-sat")
_LEAST_VARIANCE = 1e-7


class HuggingFace(Encoder):
    """The convolutions and first transformer layers of a self-supervised encoder.

    Each clip is scaled to mean 0 and variance 1, as these models were trained. Where the
    convolutions are normalised over time (``feat_extract_norm = "group"``), padding would change
    a clip's features: such batches run clip by clip.

    Args:
        sizes: the model's own configuration, with ``num_hidden_layers`` as kept.
    """

    family = "huggingface"

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        from transformers import AutoConfig, AutoModel  # takes seconds

        config = AutoConfig.for_model(**_plain(sizes))
        config.layerdrop = config.mask_time_prob = config.mask_feature_prob = 0.0
        self.sizes, self.width = sizes, config.hidden_size
        self.one_by_one = getattr(config, "feat_extract_norm", "layer") == "group"
        self.model = AutoModel.from_config(config)

    @classmethod
    def pretrained(cls, folder: Path, layers: int) -> Self:
        """Read ``config.json`` and ``model.safetensors`` as transformers writes them."""
        config = read_config(folder, MODEL_TYPES)
        kept = fewer(layers, size(config, "num_hidden_layers", folder), folder)
        try:
            encoder = cls({**config, "num_hidden_layers": kept})
        except (TypeError, ValueError, RuntimeError) as error:
            raise TrainingError(f"{folder}/config.json: {str(error).splitlines()[0]}") from None
        prefix = encoder.model.base_model_prefix
        tensors = read_tensors(folder, (f"{prefix}.",))
        fill(encoder.model, tensors, folder)
        return encoder

    @classmethod
    def build(cls, sizes: Sizes) -> Self:
        """As the class itself."""
        return cls(sizes)

    def forward(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Frames as the model gives them, mostly one per 20 ms."""
        inside = torch.arange(waveform.shape[1], device=waveform.device) < lengths[:, None]
        count = lengths[:, None].clamp(min=1)
        mean = (waveform * inside).sum(1, keepdim=True) / count
        centred = (waveform - mean) * inside
        variance = centred.square().sum(1, keepdim=True) / count
        scaled = centred / (variance + _LEAST_VARIANCE).sqrt()
        if self.one_by_one and len(waveform) > 1:
            rows = [
                self.model(row[None, : int(n)]).last_hidden_state[0]
                for row, n in zip(scaled, lengths, strict=True)
            ]
            frames = nn.utils.rnn.pad_sequence(rows, batch_first=True)
        elif self.one_by_one:
            frames = self.model(scaled).last_hidden_state
        else:
            frames = self.model(scaled, attention_mask=inside.long()).last_hidden_state
        counts = self.model._get_feat_extract_output_lengths(lengths)
        mask = torch.arange(frames.shape[1], device=frames.device) < counts[:, None]
        return frames, mask

    def stages(self) -> list[list[nn.Parameter]]:
        """Each transformer layer; the convolutions stay as they are."""
        return [list(layer.parameters()) for layer in self.model.encoder.layers]


def _plain(sizes: Sizes) -> dict[str, Any]:
    """The configuration without what only describes a checkpoint."""
    dropped = ("architectures", "transformers_version", "torch_dtype", "dtype", "_name_or_path")
    return {name: value for name, value in sizes.items() if name not in dropped}
