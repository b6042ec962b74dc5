"""``nnpm export``: a finished run becomes a bundle, checked by ONNX Runtime against torch."""

import shlex
import tempfile
from pathlib import Path
from typing import Any

import torch

from ... import __version__
from ...service.files import require_place
from ...service.inference import bundle as bundles
from ...service.inference.bundle import Bundle
from ...service.inference.card import Card, Decision
from ...service.inference.graphs import Model
from ...service.inference.recognizer import Recognizer
from ..config import DEFAULT
from ..config import load as load_config
from ..corpora import CORPORA
from ..errors import TrainingError
from ..evaluation import Verdict, judge, report
from ..network.network import Network
from ..source.run import (
    Request,
    TrainingData,
    check_same_data,
    load_training_data,
    read,
    require_finished,
    trained_network,
)
from . import model_card
from .calibration import build_memory, fit_decision
from .files import (
    head_graph,
    memory_file,
    network_graph,
    probe_file,
    require_parity,
    timestamp,
    weights_file,
)

WINDOW_S, HOP_S = 6.0, 3.0
"""Clips up to the window are one segment; nearly all training clips are shorter."""


def export(run: Path, out: Path, *, cache: Path, data: Path | None = None) -> dict[str, Any]:
    """Write the bundle of a finished run.

    Args:
        run: folder of ``nnpm train``.
        out: folder of the bundle; must not exist.
        cache: folder for decoded clips.
        data: where the corpora are now; None for where they were in training.

    Returns:
        The metrics on the held-out source speakers, and the parity.

    Raises:
        TrainingError: if the run is unfinished, its corpora have changed, or the graph and torch
            differ.
        CorpusError: if a corpus cannot be read.
        BundleError: if ``out`` exists or cannot be written.
    """
    request = read(run)
    if data is not None:
        request = request.model_copy(update={"data": data})
    if out.exists():
        raise TrainingError(f"{out} exists; bundles are not overwritten: choose another --out")
    require_place(out)
    require_finished(run)
    training_data = load_training_data(request, cache)
    check_same_data(run, training_data)
    network = trained_network(run, request, training_data.labels)
    train = training_data.split.train
    memory = build_memory(network, train, training_data.clips(train))
    decision = fit_decision(network, memory, training_data, request.seed)

    files = {
        "model.onnx": network_graph(network),
        "head.onnx": head_graph(network),
        "memory.safetensors": memory_file(memory),
        "weights.safetensors": weights_file(network),
        "probe.npz": probe_file(network),
    }
    card = _card(request, training_data, decision)
    parity, held_out = _check(card, files, network, training_data)
    metrics = report(held_out, training_data.labels)
    card = card.model_copy(update={"metrics": {"held_out_source": metrics, "parity": parity}})
    text = model_card.write(card, training_data.split, held_out)
    bundles.save(out, card, {**files, "README.md": text.encode()})
    return {"parity": parity, **metrics}


def _card(request: Request, data: TrainingData, decision: Decision) -> Card:
    names = sorted({u.corpus for u in data.split.train})
    corpora = [_corpus(name, data) for name in names]
    licences = sorted({str(corpus["licence"]) for corpus in corpora})
    return Card(
        created_at=timestamp(),
        nnpm_version=__version__,
        labels=data.labels,
        window_s=WINDOW_S,
        hop_s=HOP_S,
        decision=decision,
        calibrated=True,
        source_languages=tuple(sorted({u.language for u in data.split.train})),
        licence=" and ".join(licences),
        training={
            "corpora": corpora,
            "seed": request.seed,
            "config": request.config.model_dump(mode="json"),
            "command": _command(request),
            "torch": torch.__version__,
        },
        metrics={},
    )


def _command(request: Request) -> str:
    """What to type; the config is named only where it is not the default one."""
    named = "" if request.config == load_config(DEFAULT) else " --config CONFIG"
    return (
        f"nnpm train --corpora {shlex.join(request.corpora)} --data DIR{named} "
        f"--seed {request.seed} --out RUN && nnpm export RUN --out BUNDLE"
    )


def _corpus(name: str, data: TrainingData) -> dict[str, Any]:
    known = CORPORA.get(name)
    speakers = {
        side: sorted({u.speaker for u in utterances if u.corpus == name})
        for side, utterances in (
            ("train", data.split.train),
            ("validation", data.split.validation),
            ("test", data.split.test),
        )
    }
    clips = [u for u in data.split.train if u.corpus == name]
    return {
        "name": name,
        "language": clips[0].language,
        "licence": known.licence if known else "as its owner says",
        "citation": known.citation if known else "",
        "url": known.url if known else "",
        "clips": len(clips),
        "speakers": speakers,
    }


def _check(
    card: Card, files: dict[str, bytes], network: Network, data: TrainingData
) -> tuple[dict[str, float], list[Verdict]]:
    """Load the bundle as the service will; compare it with torch, and score the test speakers."""
    with tempfile.TemporaryDirectory() as folder:
        bundle = bundles.save(Path(folder) / "bundle", card, {**files, "README.md": b""})
        clips = list(data.clips(data.split.validation))
        parity = require_parity(Model(bundle), network, clips)
        recognizer = Recognizer(Bundle(bundle.path, bundle.card))
        return parity, judge(recognizer, data.split.test)
