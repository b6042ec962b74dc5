"""Adaptation to a language without labels: one file per method, one contract for all."""

from training.adaptation.adabn import AdaBN
from training.adaptation.coral import Coral
from training.adaptation.dann import DANN
from training.adaptation.entropy import Entropy
from training.adaptation.method import Method
from training.adaptation.mmd import MMD
from training.adaptation.nnpm import NNPM
from training.adaptation.self_training import SelfTraining
from training.adaptation.source_only import SourceOnly

METHODS: dict[str, type[Method]] = {
    cls.name: cls for cls in (SourceOnly, AdaBN, Coral, MMD, DANN, Entropy, SelfTraining, NNPM)
}
"""Every method by the name that users give."""
