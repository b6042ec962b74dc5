"""The files of a bundle: memory, weights and probe as bytes, and the network read back from them.

The probe holds synthetic clips and torch's answers to them: wherever a bundle is loaded, it must
give these answers.
"""

import json
import os
import tempfile
from datetime import UTC, datetime

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.numpy import save as save_arrays
from safetensors.torch import load_file
from safetensors.torch import save as save_tensors

from ...service.inference.audio.waveform import SAMPLE_RATE_HZ
from ...service.inference.bundle import Bundle, Memory
from ..config import Config
from ..errors import TrainingError
from ..network.network import Network

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
