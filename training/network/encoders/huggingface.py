"""Encoders of ``transformers`` that take the waveform: wav2vec 2.0, HuBERT, WavLM and kin."""

import warnings
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from ...errors import TrainingError
from .encoder import Encoder, Sizes, fewer, fill, read_config, size

MODEL_TYPES = ("wav2vec2", "hubert", "wavlm", "data2vec-audio", "unispeech", "unispeech-sat")
_LEAST_VARIANCE = 1e-7
_ALIASES = {  # as torch named the halves of a normalised weight when these models were published
    "weight_g": "parametrizations.weight.original0",
    "weight_v": "parametrizations.weight.original1",
}
_OFF = ("layerdrop", "mask_time_prob", "mask_feature_prob")
_DESCRIPTION = ("architectures", "transformers_version", "torch_dtype", "dtype", "_name_or_path")


class HuggingFace(Encoder):
    """The convolutions and first transformer layers of a self-supervised encoder.

    Each clip is scaled to mean 0 and variance 1, as these models were trained.

    References:
        Baevski et al., *wav2vec 2.0*, arXiv 2006.11477, as ``transformers`` has it. Where its first
        convolution is normalised over time (``feat_extract_norm = "group"``), the statistics here
        are those of the clip alone, so that padding changes nothing.

    Args:
        sizes: the model's own configuration, with ``num_hidden_layers`` as kept.
    """

    family = "huggingface"

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        from transformers import AutoConfig, AutoModel  # takes seconds

        given = {name: value for name, value in sizes.items() if name not in _DESCRIPTION}
        config = AutoConfig.for_model(**(given | dict.fromkeys(_OFF, 0.0) | {"add_adapter": False}))
        self.sizes, self.width = sizes, config.hidden_size
        self.model = AutoModel.from_config(config)  # type: ignore[no-untyped-call]
        positions = self.model.encoder.pos_conv_embed
        if hasattr(positions, "layers"):  # data2vec
            self.model.encoder.pos_conv_embed = _Positions(positions.layers)

    @classmethod
    def pretrained(cls, folder: Path, layers: int) -> Self:
        """Read ``config.json`` and ``model.safetensors`` as transformers writes them."""
        config = read_config(folder, MODEL_TYPES)
        kept = fewer(layers, size(config, "num_hidden_layers", folder), folder)
        try:
            encoder = cls({**config, "num_hidden_layers": kept})
        except ImportError:
            raise
        except Exception as error:  # the library checks sizes in a dozen ways
            reason = " ".join(str(error).split())[:200]
            raise TrainingError(f"{folder}/config.json describes no encoder: {reason}") from None
        fill(encoder.model, folder, (f"{encoder.model.base_model_prefix}.",), _ALIASES)
        return encoder

    @classmethod
    def build(cls, sizes: Sizes) -> Self:
        """As the class itself."""
        return cls(sizes)

    def forward(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Frames as the model gives them, mostly one per 20 ms."""
        return self._layers(*self._features(waveform, lengths))

    def lower(self, waveform: Tensor, lengths: Tensor, frozen: int) -> tuple[Tensor, Tensor]:
        """The convolutions; all of it, if no layer learns."""
        if frozen < len(self.stages()):
            return self._features(waveform, lengths)
        frames: tuple[Tensor, Tensor] = self(waveform, lengths)
        return frames

    def upper(self, states: Tensor, mask: Tensor, frozen: int) -> tuple[Tensor, Tensor]:
        """Projection and layers; nothing, if no layer learns."""
        return self._layers(states, mask) if frozen < len(self.stages()) else (states, mask)

    def least_frozen(self) -> int:
        """The convolutions never learn."""
        return 0

    def _features(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """The convolutions' features, and which frames belong to the clip."""
        inside = torch.arange(waveform.shape[1], device=waveform.device) < lengths[:, None]
        count = lengths[:, None].clamp(min=1)
        mean = (waveform * inside).sum(1, keepdim=True) / count
        centred = (waveform - mean) * inside
        variance = centred.square().sum(1, keepdim=True) / count
        features, counts = self._convolve(centred / (variance + _LEAST_VARIANCE).sqrt(), lengths)
        return features, torch.arange(features.shape[1], device=features.device) < counts[:, None]

    def _layers(self, features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        projected = self.model.feature_projection(features)
        if isinstance(projected, tuple):  # HuBERT gives one tensor, the others two
            projected = projected[0]
        with warnings.catch_warnings():
            # WavLM gives torch's attention two masks of different types
            warnings.filterwarnings("ignore", "Support for mismatched key_padding_mask")
            frames = self.model.encoder(projected, attention_mask=mask).last_hidden_state
        return frames, mask

    def _convolve(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """The feature encoder: features ``(batch, num_frames, width)``, and frames of each clip."""
        hidden, counts = waveform[:, None], lengths
        for layer in self.model.feature_extractor.conv_layers:
            (kernel,), (stride,) = layer.conv.kernel_size, layer.conv.stride
            counts = (counts - kernel) // stride + 1
            norm = getattr(layer, "layer_norm", None)
            if isinstance(norm, nn.GroupNorm):
                hidden = layer.activation(_normalise(layer.conv(hidden), counts, norm))
            else:
                hidden = layer(hidden)
        return hidden.transpose(1, 2), counts

    def stages(self) -> list[list[nn.Parameter]]:
        """Each transformer layer; the convolutions stay as they are."""
        return [list(layer.parameters()) for layer in self.model.encoder.layers]


class _Positions(nn.Module):
    """Several convolutions over the frames, each masked: the model's own leak padding inwards.

    The frames behind a clip's end are those that are zero, as the encoder gives them.
    """

    def __init__(self, layers: nn.ModuleList) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, frames: Tensor) -> Tensor:
        inside = (frames != 0).any(2)[:, None]
        hidden = frames.transpose(1, 2)
        for layer in self.layers:
            hidden = layer(hidden) * inside
        return hidden.transpose(1, 2)


def _normalise(hidden: Tensor, counts: Tensor, norm: nn.GroupNorm) -> Tensor:
    """A group norm of one channel per group, over each clip's own frames.

    Args:
        hidden: shape ``(batch, channels, num_frames)``.
        counts: frames of each clip, shape ``(batch,)``.
        norm: with as many groups as channels.
    """
    inside = torch.arange(hidden.shape[2], device=hidden.device) < counts[:, None, None]
    count = counts[:, None, None].clamp(min=1)
    mean = (hidden * inside).sum(2, keepdim=True) / count
    variance = ((hidden - mean).square() * inside).sum(2, keepdim=True) / count
    standard = (hidden - mean) / (variance + norm.eps).sqrt()
    return standard * norm.weight[:, None] + norm.bias[:, None]
