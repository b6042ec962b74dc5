"""Writing an adapted bundle: graphs with the new head, aligned memory, and model card."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from ... import __version__
from ...service.inference import bundle as bundles
from ...service.inference.bundle import Bundle, Memory
from ...service.inference.card import Card, Decision
from ...service.inference.recognizer import Recognizer
from ..bundle.files import (
    head_graph,
    memory_file,
    network_graph,
    probe_file,
    require_parity,
    timestamp,
    weights_file,
)
from ..bundle.model_card import INTENDED_USE, NOT_FOR
from ..errors import TrainingError
from ..network.head import Head
from ..network.network import Network
from .config import AdaptConfig
from .head import AdaptedHead
from .report import AdaptationReport

_SAME = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class Adapted:
    """The result of an adaptation.

    Attributes:
        network: of the base, or fine-tuned with the source audio.
        memory: of the same network.
        head: the network's head after adaptation.
        decision: of the adapted bundle.
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
    """Write the adapted bundle, completely or not at all.

    Args:
        out: its folder; must not exist.
        base: the bundle that was adapted.
        adapted: the result of the adaptation.
        report: of the adaptation; its :meth:`for_card` goes into the card.
        config: of the adaptation.
        examples: clips of the target, on which the graphs and torch are compared.

    Returns:
        The new bundle.

    Raises:
        TrainingError: if the graphs and torch differ, or the aligned memory exceeds float16.
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
        "README.md": write_adapted_card(card, report, command).encode(),
    }
    parity = _check(card, files, renewed, examples)
    metrics = {"adaptation": report.for_card(), "parity": parity}
    return bundles.save(out, card.model_copy(update={"metrics": metrics}), files)


def _graphs(base: Bundle, old: Network, new: Network) -> dict[str, bytes]:
    """The base's graphs with the new head; new ones if more than the head has changed."""
    graphs = {}
    for name, export in (("model.onnx", network_graph), ("head.onnx", head_graph)):
        replaced = replace_head((base.path / name).read_bytes(), old.head, new.head)
        graphs[name] = replaced or export(new)
    return graphs


def replace_head(graph: bytes, old: Head, new: Head) -> bytes | None:
    """Replace the weights of ``old`` by those of ``new``; this is seconds faster than an export.

    Tensors are found by value, because exporters fold and rename them.

    Args:
        graph: ``model.onnx`` or ``head.onnx``, exported with ``old``.
        old: the head whose weights it holds.
        new: of the same shape.

    Returns:
        The graph with the new weights; None unless each old tensor is found exactly once.
    """
    model = onnx.load_from_string(graph)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    values = {name: numpy_helper.to_array(tensor) for name, tensor in tensors.items()}
    for before, after in zip(_tensors(old), _tensors(new), strict=True):
        places = [
            name
            for name, value in values.items()
            if value.shape == before.shape and np.allclose(value, before, rtol=_SAME, atol=_SAME)
        ]
        if len(places) != 1:
            return None
        tensors[places[0]].CopyFrom(numpy_helper.from_array(after, places[0]))
    changed: bytes = model.SerializeToString()
    return changed


@torch.no_grad()
def _tensors(head: Head) -> Iterator[NDArray[np.float32]]:
    """The tensors that adaptation changes, as exported graphs hold them."""
    norm = head.norm
    assert norm.running_mean is not None
    assert norm.running_var is not None
    yield norm.running_mean.numpy()
    yield norm.running_var.numpy()
    yield head.projection.weight.numpy()
    yield head.projection.bias.numpy()
    yield np.ascontiguousarray(F.normalize(head.classes, dim=1).T.numpy())


def _aligned(adapted: Adapted) -> Memory:
    """The memory, aligned with the target's statistics, so that one head fits both."""
    memory = adapted.memory
    features = adapted.head.align(torch.from_numpy(memory.features)).numpy()
    if not np.abs(features).max() < np.finfo(np.float16).max:
        raise TrainingError(
            "the memory, aligned with the target, has values up to "
            f"{np.abs(features).max():.3g}; a bundle stores at most {np.finfo(np.float16).max:g}"
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


def write_adapted_card(card: Card, report: AdaptationReport, command: str) -> str:
    """The card as Markdown.

    Args:
        card: of the bundle.
        report: of its adaptation.
        command: that made it.
    """
    skipped = ", ".join(f"{count} {reason}" for reason, count in report.clips.skipped.items())
    corpora = "\n".join(
        f"- **{corpus['name']}** ({corpus['language']}). Licence: {corpus['licence']}."
        for corpus in card.training.get("corpora", [])
    )
    estimate = report.estimated_accuracy
    estimated = (
        f"Estimated accuracy on these clips: {estimate.value:.2f} ± {estimate.error:.2f}. It was "
        "not measured.\n\n"
        if estimate
        else ""
    )
    trained = (
        "Encoder and head were trained, with the source's audio"
        if report.full
        else "Only the head was trained; the encoder is the base's"
    )
    reasons = "\n".join(f"- {reason}" for reason in report.reasons)
    return f"""# nnpm bundle: {", ".join(card.labels)}; adapted to {report.language}

Speech emotion recognition from 16 kHz audio, adapted to unlabelled recordings by the method
`{report.method}`. Made by nnpm {card.nnpm_version} on {card.created_at[:10]}.

**Licence of the weights: {card.licence}**, because that is the licence of the data that the base
was trained on.

## Adaptation

- Base: version {report.base.version}, whose card has the sha256 `{report.base.digest}`.
- Language: {report.language}. Clips without labels: {report.clips.accepted} used; not used: \
{skipped or "none"}.
- {trained}. Seed {report.seed}.

**Verdict, from evidence without labels: {report.verdict}.**

{reasons}

{estimated}\
Its confidence was not calibrated with labels of the target language. Before you rely on it, label
some clips and measure: `nnpm evaluate`.

## Source data

{corpora}

{INTENDED_USE}
## Limits

- It was trained on the speech above and adapted to unlabelled clips. Whether adaptation helped was
  estimated without labels, not measured. In settings other than that of these clips, expect no more
  than from its base.
{NOT_FOR}
## Made by

```bash
{command}
```

with the settings in `bundle.json`, under `training.adaptation`.
"""


def _command(report: AdaptationReport) -> str:
    return (
        f"nnpm adapt --bundle BASE --target DIR --method {report.method} "
        f"--language {report.language} --seed {report.seed} --out BUNDLE"
        f"{' --full --source DIR' if report.full else ''}"
    )
