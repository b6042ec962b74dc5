"""The model card of an adapted bundle."""

from service.inference.card import Card
from training.adaptation.report import AdaptationReport
from training.model_card import INTENDED_USE, NOT_FOR


def write(card: Card, report: AdaptationReport, command: str) -> str:
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
        f"Estimated accuracy on these clips: {estimate.value:.2f}, give or take "
        f"{estimate.error:.2f}. Nobody measured it.\n\n"
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
- Language: {report.language}. Clips without labels: {report.clips.accepted} used; left out: \
{skipped or "none"}.
- {trained}. Seed {report.seed}.

**Verdict, from evidence without labels: {report.verdict}.**

{reasons}

{estimated}\
Its confidence was not calibrated on labels of the language that it is for. Before you rely on it,
label some clips and measure: `nnpm evaluate`.

## Source data

{corpora}

{INTENDED_USE}
## Limits

- Its source is the speech above and no other, and whether adaptation helped was not measured: it
  has evidence, not labels. Other settings than that of the clips it was adapted to are as foreign
  to it as they were to its base.
{NOT_FOR}
## Made by

```bash
{command}
```

by the numbers in `bundle.json`, under `training.adaptation`.
"""
