"""The model card of an exported bundle: its data, intended use, limits and figures."""

from collections.abc import Sequence

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
        split: the speakers of training, calibration and test.
        held_out: the answers on the test speakers' clips.
    """
    corpora = "\n".join(
        f"- **{corpus['name']}** ({corpus['language']}): trained on {corpus['clips']} clips of "
        f"{len(corpus['speakers']['train'])} speakers. Licence: {corpus['licence']}."
        + (f" {corpus['citation']}" if corpus["citation"] else "")
        + (f" <{corpus['url']}>" if corpus["url"] else "")
        for corpus in card.training["corpora"]
    )
    figures = card.metrics["held_out_source"]
    return f"""# nnpm bundle: {", ".join(card.labels)}

Speech emotion recognition from 16 kHz audio; encoder, classifier and external memory after
arXiv 2108.08663. Made by nnpm {card.nnpm_version} on {card.created_at[:10]}.

**Licence of the weights: {card.licence}**, because that is the licence of the data.

## Data

{corpora}

Held out by speaker: {_speakers(split.validation)} to calibrate, {_speakers(split.test)} to test.

{INTENDED_USE}
## Limits

{_LIMITS}{NOT_FOR}
## Figures

On the held-out test speakers, with all {len(card.labels)} emotions and without abstention:
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


def _speakers(utterances: Sequence[object]) -> str:
    speakers = {(u.corpus, u.speaker) for u in utterances}  # type: ignore[attr-defined]
    return f"{len(speakers)} speakers ({len(utterances)} clips)"


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
