"""A finished run to a bundle: graphs, memory, calibration, probe, card; then ONNX against torch."""

import json
import shlex
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save as save_arrays
from safetensors.torch import save as save_tensors

from service import __version__
from service.inference import bundle as bundles
from service.inference.audio import SAMPLE_RATE_HZ
from service.inference.bundle import Bundle, Memory
from service.inference.card import Card, Decision
from service.inference.model import Model, softmax
from service.inference.recognizer import Recognizer
from training import model_card
from training.batches import pad
from training.calibration import Scores, fit_decision
from training.config import DEFAULT
from training.config import load as load_config
from training.corpora import CORPORA, Utterance
from training.errors import TrainingError
from training.evaluation import Verdict, judge, report
from training.graphs import head_graph, network_graph
from training.network import Network
from training.probe import golden_clips
from training.ragged import Ragged
from training.replacing import require_place
from training.run import (
    Material,
    Request,
    check_material,
    gather,
    read,
    require_finished,
    trained_network,
)
from training.strange import strange_sounds
from training.trainer import embed

WINDOW_S, HOP_S = 6.0, 3.0
"""Clips up to the window are one segment; nearly all training clips are shorter."""

PARITY_TOLERANCE = 1e-4
"""Largest difference in probability between ONNX Runtime and torch."""

PADDING_TOLERANCE = 1e-5
"""Largest difference in probability between a clip alone and in a padded batch."""

_PARITY_CLIPS = 100


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
        TrainingError: if the run is unfinished, its corpora have changed, or the graph does not
            say what torch says.
        BundleError: if ``out`` exists or cannot be written.
    """
    request = read(run)
    if data is not None:
        request = request.model_copy(update={"data": data})
    if out.exists():
        raise TrainingError(f"{out} exists, and bundles are not overwritten; choose another --out")
    require_place(out)
    require_finished(run)
    material = gather(request, cache)
    check_material(run, material)
    network = trained_network(run, request, material.labels)
    split = material.split
    train, validation = material.clips(split.train), material.clips(split.validation)

    memory = _memory(network, split.train, train)
    with torch.no_grad():
        slots = network.head.project(torch.from_numpy(memory.features)).numpy()
    # As recorded, and in rooms, noise and codecs: what is served is seldom a studio recording.
    versions = [validation, *material.variants(split.validation)]
    heard = [clip for version in versions for clip in version]
    known = _scores(network, heard, split.validation * len(versions))
    strange = _scores(network, strange_sounds(request.seed, list(validation)), [])
    decision = fit_decision(memory, slots, material.labels, known, strange.embedding)

    files = {
        "model.onnx": network_graph(network),
        "head.onnx": head_graph(network),
        "memory.safetensors": _memory_file(memory),
        "weights.safetensors": save_tensors(
            {name: value.contiguous() for name, value in network.state_dict().items()}
        ),
        "probe.npz": _probe_file(network),
    }
    card = _card(request, material, decision)
    parity, held_out = _check(card, files, network, validation, material)
    metrics = report(held_out, material.labels)
    card = card.model_copy(update={"metrics": {"held_out_source": metrics, "parity": parity}})
    text = model_card.write(card, split, held_out)
    bundles.save(out, card, {**files, "README.md": text.encode()})
    return {"parity": parity, **metrics}


def _scores(
    network: Network, clips: Sequence[NDArray[np.float32]], utterances: Sequence[Utterance]
) -> Scores:
    logits, pooled = embed(network, clips, torch.device("cpu"))
    with torch.no_grad():
        projection = network.head.project(pooled)
    truth = np.array([network.labels.index(u.emotion) for u in utterances], np.int64)
    return Scores(logits.numpy(), pooled.numpy(), projection.numpy(), truth)


def _memory(network: Network, utterances: Sequence[Utterance], clips: Ragged) -> Memory:
    scores = _scores(network, list(clips), utterances)
    return Memory(
        # what the bundle stores, so that calibration sees what the service will
        features=scores.embedding.astype(np.float16).astype(np.float32),
        emotion=scores.truth,
        corpus=tuple(u.corpus for u in utterances),
        language=tuple(u.language for u in utterances),
    )


def _memory_file(memory: Memory) -> bytes:
    corpora, languages = sorted(set(memory.corpus)), sorted(set(memory.language))
    return save_arrays(
        {
            "features": memory.features.astype(np.float16),
            "emotion": memory.emotion.astype(np.uint8),
            "corpus": np.array([corpora.index(name) for name in memory.corpus], np.uint16),
            "language": np.array([languages.index(name) for name in memory.language], np.uint16),
        },
        metadata={"corpora": json.dumps(corpora), "languages": json.dumps(languages)},
    )


def _probe_file(network: Network) -> bytes:
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


def _card(request: Request, material: Material, decision: Decision) -> Card:
    names = sorted({u.corpus for u in material.split.train})
    corpora = [_corpus(name, material) for name in names]
    licences = sorted({str(corpus["licence"]) for corpus in corpora})
    return Card(
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        nnpm_version=__version__,
        labels=material.labels,
        window_s=WINDOW_S,
        hop_s=HOP_S,
        decision=decision,
        calibrated=True,
        source_languages=tuple(sorted({u.language for u in material.split.train})),
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


def _corpus(name: str, material: Material) -> dict[str, Any]:
    known = CORPORA.get(name)
    speakers = {
        side: sorted({u.speaker for u in utterances if u.corpus == name})
        for side, utterances in (
            ("train", material.split.train),
            ("validation", material.split.validation),
            ("test", material.split.test),
        )
    }
    clips = [u for u in material.split.train if u.corpus == name]
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
    card: Card, files: dict[str, bytes], network: Network, clips: Ragged, material: Material
) -> tuple[dict[str, float], list[Verdict]]:
    """Load the bundle as the service will; compare it with torch, and score the test speakers."""
    with tempfile.TemporaryDirectory() as folder:
        bundle = bundles.save(Path(folder) / "bundle", card, {**files, "README.md": b""})
        parity = _parity(Model(bundle), network, list(clips))
        for name, allowed in (("torch", PARITY_TOLERANCE), ("padding", PADDING_TOLERANCE)):
            if parity[name] > allowed:
                raise TrainingError(
                    f"the graph's answers differ by {parity[name]:.2g} in probability ({name}); "
                    f"at most {allowed:g} is allowed"
                )
        recognizer = Recognizer(Bundle(bundle.path, bundle.card))
        return parity, judge(recognizer, material.split.test)


def _parity(
    model: Model, network: Network, clips: Sequence[NDArray[np.float32]]
) -> dict[str, float]:
    """Largest differences in probability over clips of mixed length.

    ``torch``: ONNX Runtime against torch, each clip alone. ``padding``: the same clip alone
    against itself in a batch with longer ones.
    """
    step = max(1, len(clips) // _PARITY_CLIPS)
    # no longer than the service's windows: a batch of many whole recordings would fill the memory
    longest = int(WINDOW_S * SAMPLE_RATE_HZ)
    chosen = [clip[:longest] for clip in clips[::step][:_PARITY_CLIPS] if len(clip) >= 512]
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
