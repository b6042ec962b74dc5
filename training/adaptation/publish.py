"""Writing an adapted bundle: the base's graph with the new head, its memory, and a model card.

A bundle keeps of the target: mean and deviation of its features, a head that was trained with them,
and figures. It keeps no feature or sample of a clip, and no file name or path.
"""

from dataclasses import dataclass
from pathlib import Path

import onnx

from ... import __version__
from ...service.inference import bundle as bundles
from ...service.inference.bundle import Bundle
from ...service.inference.card import Card, Decision
from ...service.inference.head import Head
from ..bundle.answer import attach_answer
from ..bundle.model_card import INTENDED_USE, NOT_FOR
from ..bundle.parts import memory_file, probe_file, timestamp
from .config import AdaptConfig
from .head import Start
from .report import AdaptationReport


@dataclass(frozen=True, slots=True, eq=False)
class Adapted:
    """The result of an adaptation.

    Attributes:
        head: after adaptation, with the target's statistics.
        decision: of the adapted bundle.
        occurs: its default emotions; all if empty.
        calibrated: whether the confidence was fitted to labels of the target.
        start: what the head was before, if ``--full`` made a new encoder; None keeps the base's
            encoder and memory.
    """

    head: Head
    decision: Decision
    occurs: tuple[str, ...] = ()
    calibrated: bool = False
    start: Start | None = None


def publish(
    out: Path, base: Bundle, adapted: Adapted, report: AdaptationReport, config: AdaptConfig
) -> Bundle:
    """Write the adapted bundle, completely or not at all.

    Args:
        out: its folder; must not exist.
        base: the bundle that was adapted.
        adapted: the result of the adaptation.
        report: of the adaptation; its :meth:`for_card` goes into the card.
        config: of the adaptation.

    Returns:
        The new bundle.

    Raises:
        TrainingError: if encoder, head and memory do not fit each other.
        BundleError: if ``out`` exists or cannot be written.
    """
    command = _command(report)
    card = base.card.model_copy(
        update={
            "created_at": timestamp(),
            "nnpm_version": __version__,
            "decision": adapted.decision,
            "emotions": adapted.occurs,
            "calibrated": adapted.calibrated,
            "language": report.language,
            "parent": report.base.digest,
            "training": {
                **base.card.training,
                "adaptation": {"config": config.model_dump(mode="json"), "command": command},
            },
            "metrics": {"adaptation": report.for_card()},
            "files": {},
        }
    )
    kept = {name: (base.path / name).read_bytes() for name in base.card.files}
    stored = onnx.load_from_string(kept["model.onnx"])
    start = adapted.start
    model = attach_answer(
        stored if start is None or start.encoder is None else start.encoder,
        adapted.head,
        base.memory() if start is None else start.memory,
        adapted.decision,
        base.labels,
        {entry.key: entry.value for entry in stored.metadata_props},
    )
    files = {
        **kept,
        "model.onnx": model.SerializeToString(deterministic=True),
        "head.safetensors": adapted.head.to_bytes(),
        "probe.npz": probe_file(model),
        "README.md": write_adapted_card(card, report, command).encode(),
    }
    if start is not None:
        files["memory.safetensors"] = memory_file(start.memory)
    return bundles.save(out, card, files)


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
    calibration = (
        f"Its confidence was fitted to {report.labels} labelled clips of the target language."
        if card.calibrated
        else "Its confidence was not calibrated with labels of the target language. Before you "
        "rely on it, label some clips and measure: `nnpm evaluate`."
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
- Clips answered: {report.answered_share.after:.0%}; by the base {report.answered_share.before:.0%}.
- Kept of these clips: mean and deviation of their features over all clips, a head that was trained
  with them, and the figures in `bundle.json`. No feature, sample, name or path of any clip.

**Verdict, from evidence without labels: {report.verdict}.**

{reasons}

{estimated}\
{calibration}

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
        f"{' --emotions ' + ' '.join(report.default_emotions) if report.default_emotions else ''}"
        f"{' --labels FILE' if report.labels else ''}"
        f"{' --full --run RUN --source DIR' if report.full else ''}"
    )
