"""Whisper's encoder, its first layers, for clips of any length."""

import math
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from ....service.inference.audio.waveform import SAMPLE_RATE_HZ
from ...errors import TrainingError
from .encoder import Encoder, Sizes, fewer, fill, read_config, size

_WINDOW, _HOP = 400, 160
_LEVEL_RMS = 0.05  # every clip is scaled to this level: a quiet recording need not be a calm voice
_SILENCE_RMS = 1e-5  # a clip below this is silence; its dither is not scaled up
_RANGE = 8.0  # of log10 power below a clip's loudest value, as Whisper was trained


def mel_filters(num_mels: int, num_bins: int) -> Tensor:
    """Slaney's triangular filters of equal area, shape ``(num_bins, num_mels)``.

    Linear below 1 kHz, logarithmic above; the same numbers as
    ``librosa.filters.mel(sr=16000, n_fft=400, n_mels=num_mels)``, which Whisper was trained with.

    Args:
        num_mels: filters.
        num_bins: bins of the spectrum, from 0 Hz to 8 kHz.

    Examples:
        >>> mel_filters(80, 201).shape
        torch.Size([201, 80])
    """
    step_hz, bend_hz, growth = 200.0 / 3.0, 1000.0, math.log(6.4) / 27.0
    bend = bend_hz / step_hz
    top = bend + math.log(SAMPLE_RATE_HZ / 2 / bend_hz) / growth
    mels = np.linspace(0.0, top, num_mels + 2)
    above = bend_hz * np.exp(growth * (mels - bend))
    edges = np.where(mels < bend, mels * step_hz, above)
    bins = np.linspace(0.0, SAMPLE_RATE_HZ / 2, num_bins)[:, None]
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    triangles = np.maximum(0.0, np.minimum(rising, falling))
    return torch.tensor(2.0 * triangles / (edges[2:] - edges[:-2]), dtype=torch.float32)


class LogMel(nn.Module):
    """Whisper's log-mel spectrum as layers, so that the ONNX graph contains it.

    References:
        Radford et al., *Robust Speech Recognition via Large-Scale Weak Supervision*, arXiv
        2212.04356. Theirs takes 30 s and mirrors the edges; here a clip has its own length, zeros
        around it, one level, and the floor below its own loudest value instead of the batch's.

    Examples:
        >>> log_mel, mask = LogMel(80)(torch.randn(2, 16_000), torch.tensor([16_000, 8_000]))
        >>> log_mel.shape, mask.sum(1).tolist()
        (torch.Size([2, 80, 100]), [100, 50])
    """

    def __init__(self, num_mels: int) -> None:
        super().__init__()
        time = torch.arange(_WINDOW, dtype=torch.float64)
        angle = 2.0 * math.pi * torch.arange(_WINDOW // 2 + 1)[:, None] * time / _WINDOW
        window = torch.hann_window(_WINDOW, dtype=torch.float64)
        basis = torch.cat([angle.cos() * window, angle.sin() * window]).float()
        self.register_buffer("basis", basis[:, None], persistent=False)
        self.register_buffer("filters", mel_filters(num_mels, _WINDOW // 2 + 1).T, persistent=False)
        self.basis: Tensor
        self.filters: Tensor

    def forward(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Log-mel power of a padded batch.

        Args:
            waveform: shape ``(batch, num_samples)``.
            lengths: samples of each clip, int64, shape ``(batch,)``.

        Returns:
            ``(batch, num_mels, num_frames)``, one frame per 10 ms, zeros behind a clip's end; and
            which frames belong to the clip, bool ``(batch, num_frames)``.
        """
        num_samples = waveform.shape[1]
        inside = torch.arange(num_samples, device=waveform.device) < lengths[:, None]
        waveform = torch.where(inside, waveform, torch.zeros_like(waveform))
        rms = (waveform.square().sum(1) / lengths.clamp(min=1)).sqrt()
        gain = torch.where(rms > _SILENCE_RMS, _LEVEL_RMS / rms.clamp(min=_SILENCE_RMS), 1.0)
        half = _WINDOW // 2
        # behind the end as much as a last, incomplete hop needs
        padded = F.pad((waveform * gain[:, None])[:, None], (half, half + _HOP - 1))
        spectrum = F.conv1d(padded, self.basis, stride=_HOP)
        power = spectrum.square()
        bins = self.filters.shape[1]
        mel = self.filters @ (power[:, :bins] + power[:, bins:])
        log_mel = mel.clamp(min=1e-10).log10()
        num_frames = (num_samples + _HOP - 1) // _HOP
        log_mel = log_mel[:, :, :num_frames]
        counts = (lengths + _HOP - 1) // _HOP
        mask = torch.arange(num_frames, device=waveform.device) < counts[:, None]
        loudest = torch.where(mask[:, None], log_mel, -10.0).amax((1, 2), keepdim=True)
        scaled = (torch.maximum(log_mel, loudest - _RANGE) + 4.0) / 4.0
        return torch.where(mask[:, None], scaled, 0.0), mask


def _with_gaps(log_mel: Tensor, mask: Tensor) -> Tensor:
    """SpecAugment: some bands, and the frames of some time, take each clip's mean.

    References:
        Park et al., arXiv 1904.08779; light masks here (at most 8 bands and 0.2 s).
    """
    batch, num_mels, num_frames = log_mel.shape
    count = mask.sum(1)
    mean = log_mel.sum((1, 2)) / (count * num_mels).clamp(min=1)
    bands = torch.full_like(count, num_mels)
    gaps = []
    for extent, room, longest in ((num_mels, bands, 8), (num_frames, count, 20)):
        index = torch.arange(extent, device=log_mel.device)
        length = (1 + torch.rand(batch, device=log_mel.device) * longest)[:, None]
        last_start = (room[:, None] - longest).clamp(min=1)
        start = torch.rand(batch, device=log_mel.device)[:, None] * last_start
        gaps.append((index >= start) & (index < start + length))
    gap = (gaps[0][:, :, None] | gaps[1][:, None]) & mask[:, None]
    return torch.where(gap, mean[:, None, None], log_mel)


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj, self.v_proj = nn.Linear(width, width), nn.Linear(width, width)
        self.k_proj, self.out_proj = nn.Linear(width, width, bias=False), nn.Linear(width, width)

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        query, key, value = (
            layer(frames).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer in (self.q_proj, self.k_proj, self.v_proj)
        )
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask[:, None, None])
        attended: Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return attended


class _Layer(nn.Module):
    """A transformer layer with the norms in front; the names are those of transformers."""

    def __init__(self, width: int, heads: int, inner_width: int) -> None:
        super().__init__()
        self.self_attn = _Attention(width, heads)
        self.self_attn_layer_norm = nn.LayerNorm(width)
        self.fc1, self.fc2 = nn.Linear(width, inner_width), nn.Linear(inner_width, width)
        self.final_layer_norm = nn.LayerNorm(width)

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        frames = frames + self.self_attn(self.self_attn_layer_norm(frames), mask)
        inner = F.gelu(self.fc1(self.final_layer_norm(frames)))
        after: Tensor = frames + self.fc2(inner)
        return after


class Whisper(Encoder):
    """The first layers of Whisper's encoder, without its last norm.

    References:
        arXiv 2212.04356, and transformers' ``WhisperEncoder``, whose hidden states these are
        (a test compares them). Emotion is told best by the middle layers, after the third of
        Whisper base (docs/research/method.md). Positions are cut to the clip's length, and frames
        behind its end are masked, so that padding changes nothing.

    Args:
        sizes: ``num_mels``, ``width``, ``heads``, ``inner_width``, ``positions`` and ``layers``.

    Examples:
        >>> sizes = {"num_mels": 80, "width": 16, "heads": 2, "inner_width": 32}
        >>> encoder = Whisper({**sizes, "positions": 1500, "layers": 1})
        >>> frames, mask = encoder(torch.randn(2, 16_000), torch.tensor([16_000, 8_000]))
        >>> frames.shape, mask.sum(1).tolist()
        (torch.Size([2, 50, 16]), [50, 25])
    """

    family = "whisper"

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes, self.width = sizes, sizes["width"]
        self.log_mel = LogMel(sizes["num_mels"])
        self.conv1 = nn.Conv1d(sizes["num_mels"], self.width, 3, padding=1)
        self.conv2 = nn.Conv1d(self.width, self.width, 3, stride=2, padding=1)
        self.embed_positions = nn.Embedding(sizes["positions"], self.width)
        self.embed_positions.requires_grad_(requires_grad=False)
        self.layers = nn.ModuleList(
            _Layer(self.width, sizes["heads"], sizes["inner_width"]) for _ in range(sizes["layers"])
        )

    @classmethod
    def pretrained(cls, folder: Path, layers: int) -> Self:
        """Read ``config.json`` and ``model.safetensors`` as transformers writes them."""
        config = read_config(folder, ["whisper"])
        names = {
            "num_mels": "num_mel_bins",
            "width": "d_model",
            "heads": "encoder_attention_heads",
            "inner_width": "encoder_ffn_dim",
            "positions": "max_source_positions",
        }
        sizes = {ours: size(config, theirs, folder) for ours, theirs in names.items()}
        if sizes["width"] % sizes["heads"]:
            raise TrainingError(
                f"{folder}/config.json: d_model is {sizes['width']}; it must be a multiple of "
                f"encoder_attention_heads ({sizes['heads']})"
            )
        kept = fewer(layers, size(config, "encoder_layers", folder), folder)
        encoder = cls({**sizes, "layers": kept})
        fill(encoder, folder, ("model.", "encoder."), {})
        return encoder

    @classmethod
    def build(cls, sizes: Sizes) -> Self:
        """As the class itself."""
        return cls(sizes)

    def forward(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """One frame per 20 ms; at most 30 s, as many as Whisper has positions for."""
        return self.upper(*self.lower(waveform, lengths, 1), 1)

    def lower(self, waveform: Tensor, lengths: Tensor, frozen: int) -> tuple[Tensor, Tensor]:
        """The convolutions, positions and all frozen layers."""
        if not frozen:  # the first convolution costs less than reading what it gives
            return super().lower(waveform, lengths, frozen)
        log_mel, mask = self.log_mel(waveform, lengths)
        if self.training and self.mask_p > 0 and float(torch.rand(())) < self.mask_p:
            log_mel = _with_gaps(log_mel, mask)
        hidden = F.gelu(self.conv1(log_mel)) * mask[:, None]
        frames = F.gelu(self.conv2(hidden)).transpose(1, 2)
        mask = mask[:, ::2]
        frames = frames + self.embed_positions.weight[: frames.shape[1]]
        for layer in list(self.layers)[: frozen - 1]:
            frames = layer(frames, mask)
        return frames, mask

    def upper(self, states: Tensor, mask: Tensor, frozen: int) -> tuple[Tensor, Tensor]:
        """The layers above."""
        for layer in list(self.layers)[frozen - 1 :]:
            states = layer(states, mask)
        return states, mask

    def least_frozen(self) -> int:
        """The second convolution."""
        return 1

    def stages(self) -> list[list[nn.Parameter]]:
        """The second convolution, then each layer; the first convolution stays as it is."""
        return [list(part.parameters()) for part in (self.conv2, *self.layers)]
