"""``nnpm export``: a finished run becomes a bundle of int8 matrices, compared with torch."""

import shlex
from collections import Counter
from collections.abc import Sequence, Set
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from ... import __version__
from ...service.files import require_place
from ...service.inference import bundle as bundles
from ...service.inference.bundle import Memory
from ...service.inference.card import Card, Decision
from ...service.inference.head import Head
from ..config import DEFAULT
from ..config import load as load_config
from ..corpora import CORPORA, Utterance
from ..data.augment import Augmentation
from ..data.non_speech import non_speech_sounds
from ..errors import TrainingError
from ..evaluation import Verdict, report
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
from .answer import attach_answer
from .calibration import Labelled, calibrate, cross_fit
from .encoder import Floats, Precision, embed, encoder_graph, require_parity
from .parts import as_stored, memory_file, probe_file, timestamp
from .prototypes import Prototypes, answer

WINDOW_S, HOP_S = 6.0, 3.0
"""Clips up to the window are one segment; nearly all training clips are shorter."""

MOST_SLOTS = 4096
"""Slots of a bundle's memory, chosen evenly over corpora, emotions and speakers."""

_LEAST_DEVIATION = 1e-4
_PARITY_CLIPS = 100


def export(
    run: Path, out: Path, *, cache: Path, data: Path | None = None, precision: Precision = "int8"
) -> dict[str, Any]:
    """Write the bundle of a finished run.

    Args:
        run: folder of ``nnpm train``.
        out: folder of the bundle; must not exist.
        cache: folder for decoded clips.
        data: where the corpora are now; None for where they were in training.
        precision: of the matrix products.

    Returns:
        The cross-fitted metrics on the held-out source speakers, and the parity.

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
    found = load_training_data(request, cache)
    check_same_data(run, found)
    return write_bundle(trained_network(run, request, found.labels), request, found, out, precision)


def write_bundle(
    network: Network,
    request: Request,
    data: TrainingData,
    out: Path,
    precision: Precision = "int8",
) -> dict[str, Any]:
    """Write the bundle of a network; the other arguments are as for :func:`export`.

    Args:
        network: trained on the training side of ``data``.
        request: of its run.
        data: of its run.
        out: folder of the bundle.
        precision: of the matrix products.

    Returns:
        As :func:`export`.
    """
    train, held_out = data.split.train, data.split.held_out
    exact = encoder_graph(network, "fp32")
    examples = list(data.clips(held_out))[:: max(1, len(held_out) // _PARITY_CLIPS)]
    parity = {"torch": require_parity(exact, network, examples)}
    encoder = exact if precision == "fp32" else encoder_graph(network, precision)
    slots = [train[index] for index in choose_slots(train, MOST_SLOTS)]
    head, memory = head_and_memory(
        network.head.export(), slots, embed(encoder, list(data.clips(slots))), data.labels
    )
    prototypes = Prototypes.of(head, memory)
    recorded, varied, non_speech = _held_out(encoder, data, request.seed)
    decision = calibrate(head, prototypes, varied, non_speech)
    outputs, withheld = cross_fit(head, prototypes, varied, non_speech, recorded)
    verdicts = [
        Verdict(
            utterance=utterance,
            prediction=data.labels[int(row.argmax())],
            confidence=float(row.max()),
            scores=dict(zip(data.labels, row.tolist(), strict=True)),
            abstained=bool(hidden),
        )
        for utterance, row, hidden in zip(held_out, outputs.probabilities, withheld, strict=True)
    ]
    if precision == "int8":
        parity["int8"] = _versus_float(exact, encoder, examples, head, prototypes, decision)
    metrics = report(verdicts, data.labels)
    card = _card(request, data, decision, encoder=network.encoder.family, precision=precision)
    card = card.model_copy(update={"metrics": {"held_out_source": metrics, "parity": parity}})
    metadata = {"licence": card.licence, "name": out.parent.name, "version": out.name}
    graph = attach_answer(encoder, head, memory, decision, data.labels, metadata)
    files = {
        "model.onnx": graph.SerializeToString(),
        "head.safetensors": head.to_bytes(),
        "memory.safetensors": memory_file(memory),
        "probe.npz": probe_file(graph),
        "README.md": model_card.write(card, data.split, verdicts).encode(),
        "NOTICE": model_card.notice(card).encode(),
    }
    bundles.save(out, card, files)
    return {"parity": parity, **metrics}


def head_and_memory(
    head: Head, slots: Sequence[Utterance], embedding: Floats, labels: Sequence[str]
) -> tuple[Head, Memory]:
    """The head with the statistics of what the bundle computes, and its memory.

    Each corpus is standardised by its own statistics, as in training, where every emotion counts
    alike too. The head's own, for speech of no known kind, are the mean of the corpora's (of the
    logarithm, for the deviation).

    Args:
        head: as trained; its statistics are replaced.
        slots: of :func:`choose_slots`.
        embedding: h of their clips, shape ``(slots, D)``.
        labels: emotions in the order of the logits.
    """
    corpus = np.array([u.corpus for u in slots])
    names = sorted(set(corpus))
    mean = np.stack([embedding[corpus == name].mean(axis=0) for name in names])
    deviation = np.stack([embedding[corpus == name].std(axis=0) for name in names])
    deviation = np.maximum(deviation, _LEAST_DEVIATION)
    head = replace(
        head,
        mean=mean.mean(axis=0).astype(np.float32),
        deviation=np.exp(np.log(deviation).mean(axis=0)).astype(np.float32),
    )
    place = np.searchsorted(names, corpus)
    memory = Memory(
        features=((embedding - mean[place]) / deviation[place]).astype(np.float32),
        emotion=np.array([labels.index(u.emotion) for u in slots], np.int64),
        corpus=tuple(u.corpus for u in slots),
        language=tuple(u.language for u in slots),
        speaker=tuple(u.speaker for u in slots),
    )
    return head, as_stored(memory)


def choose_slots(utterances: Sequence[Utterance], most: int) -> list[int]:
    """Choose utterances evenly over corpora and emotions, and over the speakers within them.

    Args:
        utterances: of the training side.
        most: how many; all, if there are fewer.

    Returns:
        Their indices, in order.
    """
    by_speaker, by_cell = Counter[tuple[str, ...]](), Counter[tuple[str, ...]]()
    turns = []
    for index, u in enumerate(utterances):
        by_speaker[u.corpus, u.emotion, u.speaker] += 1
        turns.append((by_speaker[u.corpus, u.emotion, u.speaker], u.speaker, index))
    ranked = []
    for _, _, index in sorted(turns):  # the speakers of a cell take turns
        u = utterances[index]
        by_cell[u.corpus, u.emotion] += 1
        ranked.append((by_cell[u.corpus, u.emotion], index))
    return sorted(index for _, index in sorted(ranked)[:most])


def _held_out(
    encoder: onnx.ModelProto, data: TrainingData, seed: int
) -> tuple[Labelled, Labelled, Floats]:
    """Held-out clips as recorded, then with varied ones, and non-speech sounds."""
    utterances = data.split.held_out
    clips = list(data.clips(utterances))
    change = Augmentation()
    varied = [change(clip, np.random.default_rng([seed, i])) for i, clip in enumerate(clips)]
    truth = np.array([data.labels.index(u.emotion) for u in utterances], np.int64)
    speakers = [(u.corpus, u.speaker) for u in utterances]
    distinct = sorted(set(speakers))
    group = np.array([distinct.index(speaker) for speaker in speakers], np.int64)
    embedding = embed(encoder, clips)
    # users seldom send studio recordings
    both = np.concatenate([embedding, embed(encoder, varied)])
    non_speech = embed(encoder, non_speech_sounds(seed, clips))
    return (
        Labelled(embedding, truth, group),
        Labelled(both, np.tile(truth, 2), np.tile(group, 2)),
        non_speech,
    )


def _versus_float(
    exact: onnx.ModelProto,
    encoder: onnx.ModelProto,
    examples: Sequence[Floats],
    head: Head,
    prototypes: Prototypes,
    decision: Decision,
) -> float:
    """Mean difference of a probability between the int8 graph and the float32 one."""
    float32, int8 = (
        answer(embed(graph, examples), head, prototypes, decision).probabilities
        for graph in (exact, encoder)
    )
    return float(np.abs(int8 - float32).mean())


def _card(
    request: Request, data: TrainingData, decision: Decision, *, encoder: str, precision: Precision
) -> Card:
    names = sorted({u.corpus for u in data.split.train})
    corpora = [_corpus(name, data) for name in names]
    config = request.config.model_dump(mode="json")
    config["encoder"]["source"] = _public_name(request.config.encoder.source)
    return Card(
        created_at=timestamp(),
        nnpm_version=__version__,
        labels=data.labels,
        window_s=WINDOW_S,
        hop_s=HOP_S,
        decision=decision,
        calibrated=True,
        source_languages=tuple(sorted({u.language for u in data.split.train})),
        licence=_licence({str(corpus["licence"]) for corpus in corpora}),
        training={
            "corpora": corpora,
            "encoder": {"family": encoder, "source": config["encoder"]["source"]},
            "precision": precision,
            "seed": request.seed,
            "config": config,
            "command": _command(request, precision),
            "torch": torch.__version__,
        },
        metrics={},
    )


def _licence(corpora: Set[str]) -> str:
    """The licence of a bundle as a whole, from those of its corpora.

    CC BY-NC-SA asks for itself, and allows what comes from CC BY and from the ODbL's produced works
    to be under it. NOTICE says what holds for the parts.

    Examples:
        >>> _licence({"CC BY-NC-SA 4.0", "ODbL 1.0, contents DbCL 1.0", "CC BY 4.0"})
        'CC BY-NC-SA 4.0'
        >>> _licence({"ODbL 1.0, contents DbCL 1.0", "CC BY 4.0"})
        'CC BY 4.0 and ODbL 1.0, contents DbCL 1.0'
    """
    kept = set(corpora)
    if any(licence.startswith("CC BY-NC-SA") for licence in corpora):
        kept = {licence for licence in corpora if not licence.startswith(("CC BY 4.0", "ODbL"))}
    return " and ".join(sorted(kept))


def _public_name(source: str) -> str:
    """An id of a model hub as it is; of a path the last name, since others have other folders.

    Examples:
        >>> _public_name("openai/whisper-base"), _public_name("/data/models/whisper-base")
        ('openai/whisper-base', 'whisper-base')
    """
    is_id = source.count("/") == 1 and not source.startswith((".", "/", "~"))
    return source if is_id else Path(source).name


def _command(request: Request, precision: Precision) -> str:
    """What to type; config and precision are named only where they are not the default ones."""
    given = request.config.encoder
    default = load_config(DEFAULT)
    same = request.config.model_copy(update={"encoder": default.encoder}) == default
    named = "" if same else " --config CONFIG"
    changes = "".join(
        f" --set encoder.{name}={value}"
        for name, value in given.model_dump().items()
        if name != "source" and value != getattr(default.encoder, name)
    )
    return (
        f"nnpm train --corpora {shlex.join(request.corpora)} --data DIR{named}{changes} "
        f"--seed {request.seed} --out RUN && nnpm export RUN --out BUNDLE"
        + ("" if precision == "int8" else f" --precision {precision}")
    )


def _corpus(name: str, data: TrainingData) -> dict[str, Any]:
    known = CORPORA.get(name)
    speakers = {
        side: sorted({u.speaker for u in utterances if u.corpus == name})
        for side, utterances in (("train", data.split.train), ("held_out", data.split.held_out))
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
