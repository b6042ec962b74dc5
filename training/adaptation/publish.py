"""An adapted head to a bundle that stands on its own."""

import tempfile
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from service import __version__
from service.inference import bundle as bundles
from service.inference.bundle import Bundle, Memory
from service.inference.card import Card, Decision
from service.inference.recognizer import Recognizer
from training.adaptation import model_card
from training.adaptation.config import AdaptConfig
from training.adaptation.graph_head import replace_head
from training.adaptation.head import AdaptedHead
from training.adaptation.report import AdaptationReport
from training.bundle_files import memory_file, probe_file, timestamp, weights_file
from training.errors import TrainingError
from training.graphs import head_graph, network_graph
from training.network import Network
from training.parity import require_parity


@dataclass(frozen=True, slots=True, eq=False)
class Adapted:
    """What adaptation leaves.

    Attributes:
        network: of the base, or moved with its source audio at hand.
        memory: of the same network.
        head: the network's head after adaptation.
        decision: how its logits and its memory become an answer.
    """

    network: Network
    memory: Memory
    head: AdaptedHead
    decision: Decision


def publish(
    out: Path,
    base: Bundle,
    adapted: Adapted,
    report: AdaptationReport,
    config: AdaptConfig,
    examples: Sequence[NDArray[np.float32]],
) -> Bundle:
    """Write the adapted bundle, whole or not at all.

    Args:
        out: where it shall stand; nothing may be there.
        base: the bundle that was adapted.
        adapted: what it shall hold.
        report: of the adaptation; the card keeps what is not of this machine.
        config: of the adaptation.
        examples: clips of the target, on which the graphs must say what torch says.

    Raises:
        TrainingError: if they do not, or the aligned memory does not fit into float16.
        BundleError: if ``out`` exists or cannot be written.
    """
    renewed = deepcopy(adapted.network)
    renewed.head = adapted.head.export()
    command = _command(report)
    card = base.card.model_copy(
        update={
            "created_at": timestamp(),
            "nnpm_version": __version__,
            "decision": adapted.decision,
            "calibrated": False,
            "language": report.language,
            "parent": report.base.digest,
            "training": {
                **base.card.training,
                "adaptation": {
                    "config": config.model_dump(mode="json"),
                    "command": command,
                    "torch": torch.__version__,
                },
            },
            "files": {},
        }
    )
    files = {
        **_graphs(base, adapted.network, renewed),
        "memory.safetensors": memory_file(_aligned(adapted)),
        "weights.safetensors": weights_file(renewed),
        "probe.npz": probe_file(renewed),
        "README.md": model_card.write(card, report, command).encode(),
    }
    parity = _check(card, files, renewed, examples)
    metrics = {"adaptation": report.for_card(), "parity": parity}
    return bundles.save(out, card.model_copy(update={"metrics": metrics}), files)


def _graphs(base: Bundle, old: Network, new: Network) -> dict[str, bytes]:
    """The base's graphs with the new head, or new ones where more than the head has changed."""
    graphs = {}
    for name, export in (("model.onnx", network_graph), ("head.onnx", head_graph)):
        replaced = replace_head((base.path / name).read_bytes(), old.head, new.head)
        graphs[name] = replaced or export(new)
    return graphs


def _aligned(adapted: Adapted) -> Memory:
    """The memory where the target's statistics are, so that one head reads both."""
    memory = adapted.memory
    features = adapted.head.align(torch.from_numpy(memory.features)).numpy()
    if not np.abs(features).max() < np.finfo(np.float16).max:
        raise TrainingError(
            f"aligned with the target, the memory holds numbers up to {np.abs(features).max():.3g};"
            f" {np.finfo(np.float16).max:g} is the most that a bundle can store"
        )
    return Memory(features, memory.emotion, memory.corpus, memory.language)


def _check(
    card: Card,
    files: Mapping[str, bytes],
    network: Network,
    examples: Sequence[NDArray[np.float32]],
) -> dict[str, float]:
    """Load the bundle as the service will, and compare it with torch."""
    with tempfile.TemporaryDirectory() as folder:
        recognizer = Recognizer(bundles.save(Path(folder) / "bundle", card, files))
        return require_parity(recognizer.model, network, examples)


def _command(report: AdaptationReport) -> str:
    return (
        f"nnpm adapt --bundle BASE --target DIR --method {report.method} "
        f"--language {report.language} --seed {report.seed} --out BUNDLE"
        f"{' --full --source DIR' if report.full else ''}"
    )
