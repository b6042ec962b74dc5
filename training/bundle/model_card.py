"""The model card and the NOTICE of a bundle: its data, licences, intended use, limits, figures."""

import json
from collections.abc import Sequence
from pathlib import Path

from ...service.inference.card import Card
from ..data.splits import Split
from ..evaluation import Verdict, report

INTENDED_USE = """\
## Intended use

Research on emotional speech, and pipelines that look at many recordings at once and leave
decisions on people to people. The answer is how an utterance *sounds*, by the labels of the
training corpora (in most published ones, what an actor was asked to portray); it is not what a
person feels.
"""

NOT_FOR = """\
- **The law**: the EU's AI Act (Regulation (EU) 2024/1689, Article 5(1)(f)) prohibits AI systems
  that infer emotions of people at the workplace and in education, except for medical or safety
  reasons; other uses of emotion recognition are high-risk (Annex III) and must be disclosed to the
  people concerned (Article 50(3)). Other places have laws of their own.
- Do not use it to judge a person's truthfulness, health, or suitability for a task.
"""

_LIMITS = """\
- Trained on the speech above only. In other languages, in other settings (spontaneous instead of
  acted, noisy instead of clean) and on children's voices it is less accurate than the figures
  below; adapt it, and measure.
- Confidence is calibrated on held-out speakers of these corpora; elsewhere it is mostly too high.
"""


def write(card: Card, split: Split, held_out: Sequence[Verdict]) -> str:
    """The card as Markdown.

    Args:
        card: of the bundle, with its metrics.
        split: the speakers of training, and those held out.
        held_out: the cross-fitted answers on the held-out speakers' clips.
    """
    corpora = "\n".join(
        f"- **{corpus['name']}** ({corpus['language']}): trained on {corpus['clips']} clips of "
        f"{len(corpus['speakers']['train'])} speakers. Licence: {corpus['licence']}."
        + (f" {corpus['citation']}" if corpus["citation"] else "")
        + (f" <{corpus['url']}>" if corpus["url"] else "")
        for corpus in card.training["corpora"]
    )
    figures = card.metrics["held_out_source"]
    speakers = {(u.corpus, u.speaker) for u in split.held_out}
    fit = "on other speakers" if len(speakers) > 1 else "on this very speaker"
    return f"""{_front_matter(card)}
# nnpm bundle: {", ".join(card.labels)}

Speech emotion recognition from 16 kHz audio: an encoder from {card.training["encoder"]["source"]},
with classifier and external memory after arXiv 2108.08663. Matrix products in \
{card.training["precision"]}. Made by nnpm {card.nnpm_version} on {card.created_at[:10]}.

**Licence of the weights: {card.licence}**, because of the data's. NOTICE has the encoder's licence
and what each corpus asks for.

## Data

{corpora}

Held out: {_counted(len(speakers), "speaker")} ({_counted(len(split.held_out), "clip")}). They
calibrate it, and the figures below are theirs, each by a calibration {fit}.

{INTENDED_USE}
## Limits

{_LIMITS}{NOT_FOR}
## Figures

On the held-out speakers, with all {len(card.labels)} emotions and without abstention:
WA {figures["wa"]:.3f}, UAR {figures["uar"]:.3f}, macro F1 {figures["macro_f1"]:.3f}, \
ECE {figures["ece"]:.3f}. With abstention it answers {figures["coverage"]:.0%} of the clips.

| group | clips | WA | UAR |
| --- | --- | --- | --- |
{_groups(held_out, card.labels)}

| emotion | clips | recall |
| --- | --- | --- |
{_per_class(figures)}

The project's README and its `benchmarks/results/` score the bundled model on corpora that were not
used in training.

## Made by

```bash
{card.training["command"]}
```

with the recipe and the seed in `bundle.json`.
"""


def _front_matter(card: Card) -> str:
    """What model hubs read: YAML between two lines of dashes, here as JSON, which is YAML."""
    figures = card.metrics["held_out_source"]
    corpora = [corpus["name"] for corpus in card.training["corpora"]]
    measured = [
        {"type": kind, "name": name, "value": round(figures[key], 4)}
        for key, kind, name in (
            ("wa", "accuracy", "WA"),
            ("uar", "recall", "UAR"),
            ("macro_f1", "f1", "macro F1"),
            ("ece", "ece", "ECE"),
        )
    ]
    result = {
        "task": {"type": "audio-classification", "name": "Speech emotion recognition"},
        "dataset": {
            "type": "held-out-speakers",
            "name": f"held-out speakers, {', '.join(corpora)}",
        },
        "metrics": measured,
    }
    fields = {
        "license": "other",
        "license_name": card.licence,
        "license_link": "NOTICE",
        "language": list(card.source_languages),
        "datasets": corpora,
        "metrics": [metric["type"] for metric in measured],
        "pipeline_tag": "audio-classification",
        "tags": ["speech-emotion-recognition", "nnpm", "onnx"],
        "model-index": [{"name": "nnpm", "results": [result]}],
    }
    lines = "\n".join(f"{name}: {json.dumps(value)}" for name, value in fields.items())
    return f"---\n{lines}\n---\n"


def notice(card: Card) -> str:
    """The text of ``NOTICE``: the encoder's licence, and that of each corpus.

    Args:
        card: of the bundle.
    """
    encoder = card.training["encoder"]
    licence = Path(__file__).with_name("notices") / f"{encoder['family']}.txt"
    text = (
        licence.read_text(encoding="utf-8")
        if licence.is_file()
        else f"Its licence is that of {encoder['source']}.\n"
    )
    corpora = "\n".join(
        f"- {corpus['name']}: {corpus['licence']}. {corpus['citation']} {corpus['url']}".rstrip()
        for corpus in card.training["corpora"]
    )
    held = {str(corpus["licence"]) for corpus in card.training["corpora"]}
    database = _DATABASE if any("ODbL" in licence for licence in held) else ""
    mixed = _MIXED if database and any("NC" in licence for licence in held) else ""
    return f"""NOTICE

The encoder of this bundle was made from {encoder["source"]} ({encoder["family"]}):

{text}
It learnt emotions from recordings of these corpora. None of their audio is in the bundle.

{corpora}
{database}{mixed}"""


_DATABASE = """
The file memory.safetensors holds one numerical feature, one emotion, one corpus name and one
speaker name for some of the clips. As far as that is a derivative database of CREMA-D, it is
offered under the Open Database License 1.0, https://opendatacommons.org/licenses/odbl/1-0/
(contents: Database Contents License 1.0); this notice is the one that the licence asks for.
"""

_MIXED = """
The bundle as a whole is under CC BY-NC-SA 4.0, since it learnt from corpora under that licence
too. We read the weights as a produced work, and the memory as a collection of several databases,
of which the part from CREMA-D stays under the ODbL.
"""


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _groups(verdicts: Sequence[Verdict], labels: Sequence[str]) -> str:
    names = {"f": "women", "m": "men", "": "gender unknown"}
    groups: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        for group in (verdict.utterance.corpus, names[verdict.utterance.gender]):
            groups.setdefault(group, []).append(verdict)
    rows = []
    for name, members in sorted(groups.items()):
        figures = report(members, labels)
        rows.append(f"| {name} | {len(members)} | {figures['wa']:.3f} | {figures['uar']:.3f} |")
    return "\n".join(rows)


def _per_class(figures: dict[str, object]) -> str:
    per_class = figures["per_class"]
    assert isinstance(per_class, dict)
    return "\n".join(
        f"| {name} | {row['clips']} | {row['recall']:.3f} |" for name, row in per_class.items()
    )
