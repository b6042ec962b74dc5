"""The files of a bundle as bytes, from the network and the memory that they hold."""

import json
import os
import tempfile
from datetime import UTC, datetime

import numpy as np
import torch
from safetensors.numpy import save as save_arrays
from safetensors.torch import save as save_tensors

from service.inference.bundle import Memory
from training.network import Network
from training.probe import golden_clips


def memory_file(memory: Memory) -> bytes:
    """``memory.safetensors``."""
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
    """``weights.safetensors``: the whole network."""
    return save_tensors({name: value.contiguous() for name, value in network.state_dict().items()})


def probe_file(network: Network) -> bytes:
    """``probe.npz``: the golden clips and torch's answers."""
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
    """Now, or ``SOURCE_DATE_EPOCH`` where it is set, in UTC.

    References:
        https://reproducible-builds.org/specs/source-date-epoch/

    Examples:
        >>> timestamp().endswith("+00:00")
        True
    """
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    moment = datetime.fromtimestamp(int(epoch), UTC) if epoch.isdecimal() else datetime.now(UTC)
    return moment.isoformat(timespec="seconds")
