"""The recipe of a network that is trained in seconds, and a small base that can be adapted."""

from pathlib import Path

from nnpm.service.inference.bundle import Bundle
from tests.support.tiny_bundle import tiny_card, write_tiny_bundle

TINY_CONFIG = """
[encoder]
channels = [8, 16]
depths = [1, 1]
pooled_channels = 16
mixstyle_stages = [0]
[head]
projection = 16
[split]
validation_share = 0.17
test_share = 0.17
[loss]
memory_start_epoch = 1
[augment]
variants = 1
shortest_crop = 20
longest_crop = 32
[train]
epochs = 4
steps_per_epoch = 10
learning_rate = 1e-2
batch_size = 16
precision = "float32"
[functionals]
steps = 60
batch_size = 32
views = 1
"""


def write_base(path: Path) -> Bundle:
    """A bundle that answers nearly all that it hears, with the card of a trained one."""
    speakers = {"train": ["cleo", "dirk"], "validation": ["anna"], "test": ["bert"]}
    corpus = {"name": "tiny", "language": "en", "licence": "none", "speakers": speakers}
    decision = tiny_card().decision.model_copy(update={"low_confidence": 0.3})
    return write_tiny_bundle(path, training={"corpora": [corpus]}, decision=decision)
