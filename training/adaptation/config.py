"""The settings of an adaptation: one TOML file, checked when it is read; every default is here."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from ..config import Above0, Count, HeldOut, Positive, Section, Share, Weight, parse

DEFAULT = Path(__file__).parents[1] / "configs" / "adapt.toml"
"""The settings of ``nnpm adapt`` without ``--config``."""


class StatisticsConfig(Section):
    """The target's mean and deviation in the head."""

    adapt: bool = True
    """Put the target's own statistics into the head."""
    mean_clips: Weight = 30.0
    """Clips that the source's mean counts as: few clips of the target move it little."""
    prior_aware: Share = 0.2
    """How far they are compared with the memory's under the target's shares of the emotions (1),
    instead of equal shares (0)."""
    deviation_clips: Weight = 60.0
    """The same for the deviation, which needs more clips than the mean."""


class PriorConfig(Section):
    """The shares of the emotions in the target, estimated from its clips."""

    estimate: bool = True
    """Estimate them by EM; else equal shares are assumed."""
    shrink_clips: Weight = 50.0
    """Clips that equal shares count as."""
    bootstrap: Positive = 50
    """Samples of the clips that say how sure the estimate is."""
    closed_below: Share = 0.03
    """An emotion is closed if its share is below this even at the upper end of the bootstrap."""
    least: Share = 0.02
    """Smallest share of an emotion that is open."""
    correct: bool = True
    """Correct the answers by the shares."""


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

    weight: Weight = 0.5
    prior: Literal["uniform", "source", "estimated"] = "uniform"
    """Shares of the emotions that the mean answer approaches: equal, those of the memory, or those
    that are estimated from the clips."""


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


class MixtureConfig(Section):
    """The mixture that pseudo labels come from. Clips are how many a part counts as."""

    start_share: Share = 0.4
    """Of the first answers in a pseudo label: two opinions of each clip."""
    mean_share: Share = 0.05
    """Of the clips, which an emotion's place among the others in the memory counts as."""
    even_share: Share = 0.035
    """Of the clips, which an even share of each open emotion counts as."""
    least_clips: Above0 = 20.0
    """That each of the two counts as at least."""
    spread_clips: Weight = 30.0
    """Of the spread around the places at the start."""
    voice_clips: Weight = 20.0
    """Of no shift at all, for each voice."""
    voices: Count = 15
    """Clusters of voices among the clips; 0 takes all clips for one voice."""
    voice_width: Positive = 60
    """Directions that tell the memory's speakers apart, in which voices are clustered."""
    rounds: Positive = 30
    """Of expectation maximisation."""
    rounds_before_voices: Count = 5


class NNPMConfig(Section):
    """Pseudo multilabels from the memory. A weight of 0, or False, disables a part."""

    multilabel_weight: Weight = 4.0
    """Of the multilabel loss between a clip and the memory's slots."""
    pseudo_label_weight: Weight = 1.0
    """Of the cross-entropy with soft pseudo labels."""
    mixture: bool = True
    """Pseudo labels from the memory's mixture; else the classifier's own answers, corrected by the
    estimated shares."""
    consistency: Share = 0.05
    """A slot is a positive only of this share of target clips, its nearest; 0 takes every slot."""
    confidence_weights: bool = True
    """Weigh a clip by how far its pseudo label is from equal shares."""
    positives: Positive = 30
    """Slots of the clip's emotion that attract it, the most similar ones."""
    negatives: Positive = 150
    """Slots of other emotions that repel it, the most similar of each, as many of each."""
    reliable_share: Share = 0.3
    """A slot attracts only if this share of its neighbours in the memory has its emotion."""
    reliable_neighbours: Positive = 10


class FullConfig(Section):
    """``--full``: the whole network, with the source's audio."""

    steps: Positive = 150
    share: Share = 0.5
    """Of the target's clips with the same answer, the surest, which are trained on."""
    rate: Above0 = 0.4
    """Factor of the learning rates of source training."""


class AdaptConfig(Section):
    """All settings of an adaptation."""

    min_clips: Positive = 20
    """Usable clips; with fewer, adaptation is refused."""
    turns_per_clip: Positive = 50
    """Turns at most of one recording (or of each of its channels), spread over its length."""
    views: Count = 1
    """Augmented versions of every clip, besides the clip as recorded."""
    heads: Positive = 1
    """Heads that are trained with draws of their own; the result is the mean of their weights."""
    steps: Count = 200
    few_clips: Count = 50
    """With fewer clips a method takes no steps: the target's statistics are all that it can use."""
    source_batch: Positive = 128
    """Memory slots per step; every emotion has the same share."""
    target_batch: Positive = 128
    """Target clips per step; all of them, where there are fewer."""
    most_slots: Positive = 2048
    """Slots that take part, drawn evenly over the emotions from a larger memory."""
    learning_rate: Above0 = 3e-4
    weight_decay: Weight = 0.0
    ramp_steps: Count = 60
    """Steps over which the method's loss rises to its full weight."""
    refresh_steps: Positive = 67
    """Steps between two passes of the method over the whole target set."""
    averaged_share: HeldOut = 0.33
    """Of the steps, the last ones, whose weights are averaged."""
    replay_weight: Weight = 1.0
    """Of the cross-entropy with the old head's answers on the source (replay)."""
    label_weight: Weight = 1.0
    """Of the cross-entropy with the labels that the user gave."""
    statistics: StatisticsConfig = StatisticsConfig()
    prior: PriorConfig = PriorConfig()
    calibrate: bool = True
    """Fit the confidence to the estimated accuracy, or to given labels; else the base's stays."""
    coral: CoralConfig = CoralConfig()
    mmd: MMDConfig = MMDConfig()
    dann: DANNConfig = DANNConfig()
    entropy: EntropyConfig = EntropyConfig()
    self_training: SelfTrainingConfig = SelfTrainingConfig()
    nnpm: NNPMConfig = NNPMConfig()
    mixture: MixtureConfig = MixtureConfig()
    full: FullConfig = FullConfig()


def load(path: Path) -> AdaptConfig:
    """Read the settings of an adaptation.

    Raises:
        TrainingError: if the file is missing, not TOML, or holds an unknown or impossible value.
    """
    return parse(path, AdaptConfig)
