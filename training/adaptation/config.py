"""The settings of an adaptation: one TOML file, checked when it is read; every default is here."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from ..config import Above0, Count, HeldOut, Positive, Section, Share, Weight, parse

DEFAULT = Path(__file__).parents[1] / "configs" / "adapt.toml"
"""The settings of ``nnpm adapt`` without ``--config``."""


class CoralConfig(Section):
    """Correlation alignment."""

    weight: Weight = 10.0
    """Of the squared distance between the covariances, which lies between 0 and 2 on the sphere."""


class MMDConfig(Section):
    """Maximum mean discrepancy."""

    weight: Weight = 0.3
    """Of the squared discrepancy, which lies between 0 and 2."""
    bandwidths: Annotated[tuple[Above0, ...], Field(min_length=1)] = (0.25, 0.5, 1.0, 2.0, 4.0)
    """Of the bank of Gaussian kernels, in medians of the squared distance between two clips."""


class DANNConfig(Section):
    """Domain-adversarial training."""

    weight: Weight = 1.0
    """Of the reversed gradient, once the schedule has raised it."""
    hidden: Positive = 32
    """Units of the domain discriminator's hidden layer."""


class EntropyConfig(Section):
    """Information maximisation."""

    weight: Weight = 1.0
    prior: Literal["uniform", "source"] = "uniform"
    """Shares of the emotions that the mean answer approaches: equal, or those of the memory."""


class SelfTrainingConfig(Section):
    """Confident pseudo labels."""

    weight: Weight = 1.0
    selection: Literal["threshold", "balanced"] = "balanced"
    """Which answers become labels: those above ``threshold``, or of each emotion the most confident
    ``share``."""
    threshold: Share = 0.8
    """Minimum probability of the answer; not used with ``balanced``."""
    share: Share = 0.2
    """Of the clips with the same answer; not used with ``threshold``."""


class NNPMConfig(Section):
    """Pseudo multilabels from the memory. A weight of 0, or False, disables a part."""

    pseudo_label_weight: Weight = 1.0
    """Of the cross-entropy with soft pseudo labels."""
    multilabel_weight: Weight = 0.3
    """Of the multilabel loss between a clip and the memory's slots."""
    information_weight: Weight = 0.3
    """Of information maximisation towards the estimated prior."""
    vote_share: Share = 0.5
    """Of the memory's vote in a pseudo label; the rest is the classifier's."""
    vote_slots: Positive = 20
    """Nearest slots of each emotion that vote."""
    vote_sharpness: Above0 = 1.5
    """Logits per standard deviation of the vote's similarities."""
    centring: bool = True
    """Compare an emotion's similarity with its mean over the target, not with other emotions'."""
    balance: Share = 0.5
    """How far the prior lies from the target's own mean answer (0) to equal shares (1)."""
    smoothing: Share = 0.3
    """Of the mean over a clip's nearest target clips in its pseudo label."""
    smoothing_neighbours: Positive = 10
    consistency: Share = 0.1
    """A slot is a positive only of this share of target clips, its nearest; 0 takes every slot."""
    confidence_weights: bool = True
    """Weigh a clip by how far its pseudo label is from equal shares."""
    positive_share: HeldOut = 0.02
    """Of the slots, the most similar of the clip's emotion that are its positives."""
    hard_negative_share: Share = 0.1
    """Of the other slots, the most similar ones that push; 1 takes all of them."""
    memory_momentum: Share = 0.5
    """Of a slot's old feature, each time its utterance is drawn."""
    most_slots: Positive = 2048
    """Slots that take part, drawn evenly over the emotions from a larger memory."""


class FullConfig(Section):
    """``--full``: the whole network, with the source's audio."""

    steps: Positive = 100
    batch: Annotated[int, Field(ge=2)] = 64
    """Crops of each side per step."""
    learning_rate: Above0 = 3e-4
    weight_decay: Weight = 0.01
    clip_gradient: Above0 = 2.0


class AdaptConfig(Section):
    """All settings of an adaptation."""

    min_clips: Positive = 20
    """Usable clips; with fewer, adaptation is refused."""
    turns_per_clip: Positive = 50
    """Turns at most of one recording, spread over its length."""
    views: Count = 3
    """Spectral augmentations of every clip, besides the clip as recorded."""
    steps: Count = 300
    source_batch: Positive = 128
    """Memory slots per step; every emotion has the same share."""
    target_batch: Positive = 128
    """Target clips per step; all of them, where there are fewer."""
    learning_rate: Above0 = 1e-4
    weight_decay: Weight = 0.0
    ramp_steps: Count = 60
    """Steps over which the method's loss rises to its full weight."""
    refresh_steps: Positive = 50
    """Steps between two passes of the method over the whole target set."""
    replay_weight: Weight = 1.0
    """Of the cross-entropy with the old head's answers on the source (replay)."""
    target_statistics: Share = 0.7
    """How far target features are normalised by their own mean and variance (1) instead of the
    source's (0)."""
    anchor: bool = True
    """Train only the weights of the convolutional part of the feature; the functionals keep theirs
    and give a second opinion."""
    answer_vote: bool = True
    """Keep the memory's vote in the answer, with the weight that the base gives it."""
    prior_correction: Share = 0.0
    """How far the classifier's answers are moved towards the prior of ``nnpm.balance``; it made no
    difference on the development pairs."""
    calibrate: bool = True
    """Fit the confidence to the estimated accuracy; else the base's temperatures stay."""
    dropout: bool = False
    """Keep the head's dropout on during adaptation."""
    coral: CoralConfig = CoralConfig()
    mmd: MMDConfig = MMDConfig()
    dann: DANNConfig = DANNConfig()
    entropy: EntropyConfig = EntropyConfig()
    self_training: SelfTrainingConfig = SelfTrainingConfig()
    nnpm: NNPMConfig = NNPMConfig()
    full: FullConfig = FullConfig()


def load(path: Path) -> AdaptConfig:
    """Read the settings of an adaptation.

    Raises:
        TrainingError: if the file is missing, not TOML, or holds an unknown or impossible value.
    """
    return parse(path, AdaptConfig)
