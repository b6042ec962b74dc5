"""Files of a bundle that need no torch: memory, probe, and the time in its card.

The probe holds synthetic clips and the graph's answers to them: wherever a bundle is loaded, it
must give these answers.
"""

import io
import json
import os
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto
from safetensors.numpy import save as save_arrays

from ...service.inference.audio.waveform import SAMPLE_RATE_HZ
from ...service.inference.bundle import FEATURE_STEPS, Memory
from ...service.inference.graphs import open_session, run_rows

Floats = NDArray[np.float32]

_MOST_STEPS = 127
_VOICES = ((120.0, 1.0), (210.0, 0.7), (165.0, 0.4))  # pitch in Hz, seconds


def as_stored(memory: Memory) -> Memory:
    """The memory as a bundle stores and returns it: features in steps of 1/32, up to +-127/32."""
    features = _steps(memory).astype(np.float32) / np.float32(FEATURE_STEPS)
    return Memory(features, memory.emotion, memory.corpus, memory.language, memory.speaker)


def memory_file(memory: Memory) -> bytes:
    """The bytes of ``memory.safetensors``: features as int8, the rest as small integers.

    Args:
        memory: standardised features, and a speaker for each slot.
    """
    tensors = {"features": _steps(memory), "emotion": memory.emotion.astype(np.uint8)}
    metadata = {}
    for one, several, names in (
        ("corpus", "corpora", memory.corpus),
        ("language", "languages", memory.language),
        ("speaker", "speakers", memory.speaker),
    ):
        distinct = sorted(set(names))
        number = {name: index for index, name in enumerate(distinct)}
        tensors[one] = np.array([number[name] for name in names], np.uint16)
        metadata[several] = json.dumps(distinct)
    return _ordered(save_arrays(tensors, metadata=metadata))


def _steps(memory: Memory) -> NDArray[np.int8]:
    steps = np.round(memory.features * np.float32(FEATURE_STEPS))
    return np.clip(steps, -_MOST_STEPS, _MOST_STEPS).astype(np.int8)


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


def probe_file(model: ModelProto) -> bytes:
    """The bytes of ``probe.npz``: the golden clips, and what the graph says of them.

    Args:
        model: as :func:`.answer.attach_answer` makes it.

    Raises:
        BundleError: if ONNX Runtime cannot read it.
    """
    waveform, lengths = golden_clips()
    found = run_rows(open_session(model.SerializeToString()), waveform, lengths)
    file = io.BytesIO()
    np.savez_compressed(file, waveform=waveform, lengths=lengths, **found._asdict())
    return file.getvalue()


def voice(pitch_hz: float, duration_s: float, seed: int) -> Floats:
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
    golden: Floats = (0.5 * sound / np.abs(sound).max()).astype(np.float32)
    return golden


def golden_clips() -> tuple[Floats, NDArray[np.int64]]:
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
