"""The files of a bundle: graphs, memory, weights and probe as bytes, and the network read back.

ONNX Runtime and torch must give the same answers. The probe holds synthetic clips and torch's
answers to them: wherever a bundle is loaded, it must give these answers.
"""

import json
import logging
import os
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.numpy import save as save_arrays
from safetensors.torch import load_file
from safetensors.torch import save as save_tensors
from torch import Tensor, nn
from torch.export import Dim

from ...service.inference.audio.waveform import SAMPLE_RATE_HZ
from ...service.inference.bundle import Bundle, Memory
from ...service.inference.graphs import Model, softmax
from ..config import Config
from ..data.batches import pad
from ..errors import TrainingError
from ..network.network import Network

OPSET = 20

PARITY_TOLERANCE = 1e-4
"""Largest difference in probability between ONNX Runtime and torch."""

PADDING_TOLERANCE = 1e-5
"""Largest difference in probability between a clip alone and in a padded batch."""

LONGEST_S = 6.0
"""Longer clips are cut to this: a batch of many whole recordings would need too much memory."""

_CLIPS = 100

_VOICES = ((120.0, 1.0), (210.0, 0.7), (165.0, 0.4))  # pitch in Hz, seconds


def voice(pitch_hz: float, duration_s: float, seed: int) -> NDArray[np.float32]:
    """A voice-like sound: a gliding pulse train through formants, in syllables, with some breath.

    Args:
        pitch_hz: pitch at the start; it falls by a fifth.
        duration_s: length in seconds.
        seed: of the breath.

    Returns:
        float32 in [-1, 1], shape ``(round(duration_s * 16000),)``.
    """
    time = np.arange(round(duration_s * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    pitch = pitch_hz * (1.0 - 0.2 * time / duration_s)
    phase = 2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE_HZ
    sound = np.zeros_like(time)
    for harmonic in range(1, 30):
        frequency = harmonic * pitch_hz
        formants = sum(np.exp(-(((frequency - f) / 150.0) ** 2)) for f in (600.0, 1200.0, 2500.0))
        sound += (0.05 + formants) / harmonic * np.sin(harmonic * phase)
    breath = np.random.default_rng(seed).standard_normal(len(time))
    syllables = 0.55 - 0.45 * np.cos(2 * np.pi * 4.0 * time)
    sound = syllables * (sound + 0.05 * breath)
    golden: NDArray[np.float32] = (0.5 * sound / np.abs(sound).max()).astype(np.float32)
    return golden


def golden_clips() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Three synthetic voices of different length, as one padded batch.

    Returns:
        Waveforms, float32, shape ``(3, num_samples)``, and int64 lengths in samples, ``(3,)``.
    """
    clips = [voice(pitch, seconds, seed) for seed, (pitch, seconds) in enumerate(_VOICES)]
    lengths = np.array([len(clip) for clip in clips], np.int64)
    waveform = np.zeros((len(clips), int(lengths.max())), np.float32)
    for row, clip in zip(waveform, clips, strict=True):
        row[: len(clip)] = clip
    return waveform, lengths


def memory_file(memory: Memory) -> bytes:
    """The bytes of ``memory.safetensors``: features as float16, the rest as small integers."""
    corpora, languages = sorted(set(memory.corpus)), sorted(set(memory.language))
    data = save_arrays(
        {
            "features": memory.features.astype(np.float16),
            "emotion": memory.emotion.astype(np.uint8),
            "corpus": np.array([corpora.index(name) for name in memory.corpus], np.uint16),
            "language": np.array([languages.index(name) for name in memory.language], np.uint16),
        },
        metadata={"corpora": json.dumps(corpora), "languages": json.dumps(languages)},
    )
    return _ordered(data)


def _ordered(data: bytes) -> bytes:
    """The same safetensors file with its header in order: the library's metadata has none.

    References:
        https://github.com/huggingface/safetensors#format: the header's size in eight bytes, the
        header as JSON, padded by spaces to a multiple of eight, then the tensors.
    """
    size = int.from_bytes(data[:8], "little")
    header = json.dumps(json.loads(data[8 : 8 + size]), sort_keys=True, separators=(",", ":"))
    text = header.encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[8 + size :]


def weights_file(network: Network) -> bytes:
    """The bytes of ``weights.safetensors``: the whole network."""
    return save_tensors({name: value.contiguous() for name, value in network.state_dict().items()})


def probe_file(network: Network) -> bytes:
    """The bytes of ``probe.npz``: the golden clips and torch's answers."""
    waveform, lengths = golden_clips()
    with torch.no_grad():
        logits, embedding = network(torch.from_numpy(waveform), torch.from_numpy(lengths))
    with tempfile.TemporaryFile() as file:
        np.savez_compressed(
            file,
            waveform=waveform,
            lengths=lengths.astype(np.float32),
            logits=logits.numpy(),
            embedding=embedding.numpy(),
        )
        file.seek(0)
        return file.read()


def timestamp() -> str:
    """The current time, or ``SOURCE_DATE_EPOCH`` if it is set: UTC, in ISO 8601 to the second.

    References:
        https://reproducible-builds.org/specs/source-date-epoch/

    Examples:
        >>> timestamp().endswith("+00:00")
        True
    """
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    moment = datetime.fromtimestamp(int(epoch), UTC) if epoch.isdecimal() else datetime.now(UTC)
    return moment.isoformat(timespec="seconds")


def restore_network(bundle: Bundle) -> Network:
    """The whole network of a bundle, in evaluation mode.

    Raises:
        TrainingError: if its card holds no recipe, or its weights do not fit the recipe.
    """
    path = bundle.path / "weights.safetensors"
    try:
        config = Config.model_validate(bundle.card.training["config"])
    except (KeyError, ValidationError):
        raise TrainingError(
            f"{bundle.path} cannot be adapted: the field training.config of its card holds no "
            "recipe that this version of nnpm can read"
        ) from None
    with torch.random.fork_rng(devices=[]):  # its random initial weights are replaced below
        network = Network(config, bundle.labels)
    try:
        network.load_state_dict(load_file(path))
    except (SafetensorError, RuntimeError):
        raise TrainingError(f"the weights in {path} do not fit the recipe of the card") from None
    return network.eval()


class _HeadGraph(nn.Module):
    def __init__(self, network: Network) -> None:
        super().__init__()
        self.head = network.head

    def forward(self, embedding: Tensor) -> tuple[Tensor, Tensor]:
        logits, projection = self.head(embedding)
        return logits, projection


def network_graph(network: Network) -> bytes:
    """Export ``model.onnx``.

    Inputs: waveform, float32 ``(batch, samples)``; lengths, int64 ``(batch,)``. Outputs: logits
    ``(batch, emotions)``; embedding ``(batch, D)``.
    """
    # min keeps the exporter from asking about empty axes; the graph itself has no such bound
    batch, samples = Dim("batch"), Dim("samples", min=8_000)
    waveform = torch.randn(2, 24_000)
    lengths = torch.tensor([24_000, 16_000])
    return _export(
        network,
        (waveform, lengths),
        {"waveform": {0: batch, 1: samples}, "lengths": {0: batch}},
        ["logits", "embedding"],
    )


def head_graph(network: Network) -> bytes:
    """Export ``head.onnx``: embedding ``(n, D)`` to logits and unit projection ``(n, width)``."""
    embedding = torch.randn(2, network.head.projection.in_features)
    return _export(
        _HeadGraph(network),
        (embedding,),
        {"embedding": {0: Dim.DYNAMIC}},
        ["logits", "projection"],
    )


def _export(
    module: nn.Module,
    example: tuple[Tensor, ...],
    dynamic_shapes: Mapping[str, Any],
    outputs: Sequence[str],
) -> bytes:
    """Export in evaluation mode, with the dynamic axes that are named."""
    with warnings.catch_warnings():
        # the exporter warns of its own use of deprecated functions, and of torchvision's absence
        warnings.simplefilter("ignore")
        for talkative in ("torch.onnx", "onnxscript"):
            logging.getLogger(talkative).setLevel(logging.ERROR)
        program = torch.onnx.export(
            module.eval(),
            example,
            input_names=list(dynamic_shapes),
            output_names=list(outputs),
            dynamic_shapes=dict(dynamic_shapes),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    graph: bytes = program.model_proto.SerializeToString()
    return graph


def require_parity(
    model: Model, network: Network, clips: Sequence[NDArray[np.float32]]
) -> dict[str, float]:
    """Measure the differences as :func:`measure_parity`, and refuse large ones.

    Args:
        model: the bundle's graphs in ONNX Runtime.
        network: the same network in torch.
        clips: samples at 16 kHz, shape ``(num_samples,)`` each; some are taken if there are many.

    Returns:
        The differences by name.

    Raises:
        TrainingError: if one is larger than its tolerance.
    """
    parity = measure_parity(model, network, clips)
    for name, allowed in (("torch", PARITY_TOLERANCE), ("padding", PADDING_TOLERANCE)):
        if not parity[name] <= allowed:  # this refuses NaN too
            raise TrainingError(
                f"the graph's probabilities differ by {parity[name]:.2g} ({name}); "
                f"at most {allowed:g} is allowed"
            )
    return parity


def measure_parity(
    model: Model, network: Network, clips: Sequence[NDArray[np.float32]]
) -> dict[str, float]:
    """Largest differences in probability over clips of mixed length.

    ``torch``: ONNX Runtime against torch, each clip alone. ``padding``: in ONNX Runtime, a clip
    alone against the same clip in a batch with longer ones.
    """
    step = max(1, len(clips) // _CLIPS)
    longest = int(LONGEST_S * SAMPLE_RATE_HZ)
    chosen = [clip[:longest] for clip in clips[::step][:_CLIPS] if len(clip) >= 512]
    versus_torch = versus_padding = 0.0
    waveform, lengths = pad(chosen)
    together, _ = model.run(waveform.numpy(), lengths.numpy())
    for row, clip in enumerate(chosen):
        alone, _ = model.run(clip[None], np.array([len(clip)], np.int64))
        with torch.no_grad():
            logits, _ = network(torch.from_numpy(clip[None]), torch.tensor([len(clip)]))
        found = softmax(alone[0])
        versus_torch = max(versus_torch, float(np.abs(found - softmax(logits.numpy()[0])).max()))
        versus_padding = max(versus_padding, float(np.abs(found - softmax(together[row])).max()))
    return {"torch": versus_torch, "padding": versus_padding}
