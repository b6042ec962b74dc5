"""Every switch of NNPM, one at a time: all that the ablation table has."""

from typing import Any

from training.adaptation.config import AdaptConfig

WHOLE = "whole method"

ABLATIONS: dict[str, dict[str, Any]] = {
    WHOLE: {},
    "no multilabel loss": {"nnpm": {"multilabel_weight": 0.0}},
    "no pseudo labels": {"nnpm": {"pseudo_label_weight": 0.0}},
    "no information maximisation": {"nnpm": {"information_weight": 0.0}},
    "no memory vote in the pseudo labels": {"nnpm": {"vote_share": 0.0}},
    "no centring": {"nnpm": {"centring": False}},
    "no balance": {"nnpm": {"balance": 0.0}},
    "no smoothing": {"nnpm": {"smoothing": 0.0}},
    "no consistency check": {"nnpm": {"consistency": 0.0}},
    "no confidence weights": {"nnpm": {"confidence_weights": False}},
    "all negatives": {"nnpm": {"hard_negative_share": 1.0}},
    "memory not updated": {"nnpm": {"memory_momentum": 1.0}},
    "no ramp": {"ramp_steps": 0},
    "no views": {"views": 0},
    "no target statistics": {"target_statistics": 0.0},
    "target statistics all the way": {"target_statistics": 1.0},
    "no replay": {"replay_weight": 0.0},
    "no anchor": {"anchor": False},
    "with dropout": {"dropout": True},
    "no memory vote in the answer": {"answer_vote": False},
    "with prior correction": {"prior_correction": 0.5},
    "no calibration by the estimate": {"calibrate": False},
}
"""What each row changes in the configuration of an adaptation."""


def changed(config: AdaptConfig, overrides: dict[str, Any]) -> AdaptConfig:
    """A configuration with some fields replaced; sections are merged field by field.

    Examples:
        >>> changed(AdaptConfig(), {"steps": 5, "coral": {"weight": 2.0}}).coral.weight
        2.0
    """
    fields = config.model_dump()
    for name, value in overrides.items():
        fields[name] = {**fields[name], **value} if isinstance(value, dict) else value
    return AdaptConfig.model_validate(fields)
