"""The recipe of a training run: one TOML file, checked when it is read; every default is here."""

import tomllib
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails

from ..service.inference.card import EMOTIONS
from .errors import TrainingError

DEFAULT = Path(__file__).parent / "configs" / "default.toml"
"""The recipe of the bundled model."""


def _known(emotion: str) -> str:
    if emotion not in EMOTIONS:
        raise ValueError(f"{emotion} is no emotion; choose among {', '.join(EMOTIONS)}")
    return emotion


Share = Annotated[float, Field(ge=0.0, le=1.0)]
HeldOut = Annotated[float, Field(gt=0.0, le=0.33)]
Positive = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
Above0 = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
Weight = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
Emotion = Annotated[str, AfterValidator(_known)]
# at least 8: squeeze-excite divides them by 8
Channels = Annotated[tuple[Annotated[int, Field(ge=8)], ...], Field(min_length=1)]


class Section(BaseModel):
    """A section of a configuration: documented, checked and immutable fields."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class FrontEndConfig(Section):
    """Sizes of the log-mel front end."""

    sample_rate: Literal[16_000] = 16_000
    win_length: Annotated[int, Field(ge=1, le=512)] = 512
    """Samples per analysis window; a multiple of ``hop_length``. Bundles take clips of 512."""
    hop_length: Positive = 256
    """Samples between windows."""
    n_mels: Positive = 64
    low_hz: Annotated[float, Field(ge=0.0)] = 50.0
    high_hz: Annotated[float, Field(le=8000.0)] = 7600.0
    log_floor: Above0 = 1e-3
    """Added to the power before the logarithm (clips are at 0.1 RMS)."""
    band_mean: Share = 0.5
    """Share of each band's mean over time that is subtracted."""
    deviation: Literal["fixed", "clip", "band"] = "fixed"
    """What divides the centred log power: ``scale``, or its deviation over the clip or the band."""
    scale: Above0 = 3.0
    """Divides the log power, so that most values lie within [-1, 1]."""

    @model_validator(mode="after")
    def _whole_hops(self) -> "FrontEndConfig":
        if self.win_length % self.hop_length:
            raise ValueError(
                f"win_length is {self.win_length}; it must be a multiple of hop_length "
                f"({self.hop_length})"
            )
        if self.low_hz >= self.high_hz:
            raise ValueError(
                f"low_hz is {self.low_hz:g}; it must be below high_hz ({self.high_hz:g})"
            )
        return self


class EncoderConfig(Section):
    """Sizes of the residual encoder."""

    channels: Channels = (24, 48, 96, 128)
    """Per stage; each stage after the first halves the bands."""
    depths: tuple[Count, ...] = (1, 1, 1, 1)
    """Residual blocks per stage."""
    time_strides: Count = 3
    """The first so many stages also halve the frames (stage 0 never does)."""
    pooled_channels: Positive = 128
    """The pooled feature has twice as many numbers: mean and deviation over time."""
    mixstyle_stages: tuple[int, ...] = (0, 1)
    mixstyle_p: Share = 0.5
    mixstyle_alpha: Above0 = 0.2

    @model_validator(mode="after")
    def _a_depth_per_stage(self) -> "EncoderConfig":
        if len(self.depths) != len(self.channels):
            raise ValueError(
                f"depths has {len(self.depths)} values; it must have one per stage, as channels "
                f"({len(self.channels)})"
            )
        return self


class HeadConfig(Section):
    """Sizes of the head: projection and classifier."""

    projection: Positive = 128
    """Width of z, the feature that the memory compares, per part of h."""
    dropout: Share = 0.3
    logit_scale: Above0 = 10.0
    """Initial factor of the cosine logits (learnt)."""


class LossConfig(Section):
    """Weights of the source losses."""

    label_smoothing: Share = 0.1
    core_weight: Weight = 0.5
    """Cross-entropy among angry, happy, neutral and sad alone, for clips of these."""
    multilabel_weight: Weight = 0.3
    multilabel_positive: Weight = 5.0
    """delta of the multilabel loss (method.md, part 5)."""
    hard_negative_share: Share = 0.01
    memory_momentum: Share = 0.5
    memory_start_epoch: Count = 3
    """Epochs before the memory is filled and its loss starts."""


class AugmentConfig(Section):
    """Augmentation of the training clips; spectral changes are drawn in every batch."""

    variants: Count = 0
    """Waveform variants per clip (room, codec, noise, speed, pitch), made once and cached."""
    clean_share: Share = 0.4
    """Share of draws that take the clip as recorded rather than a variant."""
    warp: Share = 0.12
    """Largest relative change of frequency (vocal-tract length)."""
    stretch: Share = 0.15
    """Largest relative change of tempo."""
    equaliser_db: Weight = 4.0
    """Standard deviation of a random smooth equaliser."""
    noise_p: Share = 0.5
    telephone_p: Share = 0.1
    frequency_masks: Count = 2
    frequency_mask_bands: Count = 10
    time_masks: Count = 2
    time_mask_frames: Count = 20
    mixup_p: Share = 0.5
    mixup_alpha: Above0 = 0.3
    shortest_crop: Positive = 94
    """Frames; 94 are 1.5 s."""
    longest_crop: Positive = 156
    """Frames; 156 are 2.5 s. Every batch draws one length."""

    @model_validator(mode="after")
    def _shortest_first(self) -> "AugmentConfig":
        if self.shortest_crop > self.longest_crop:
            raise ValueError(
                f"shortest_crop is {self.shortest_crop}; it must be at most longest_crop "
                f"({self.longest_crop})"
            )
        return self


class TrainConfig(Section):
    """The training loop of the encoder."""

    epochs: Positive = 30
    steps_per_epoch: Count = 0
    """0: as many as one pass over the training clips takes."""
    batch_size: Annotated[int, Field(ge=2)] = 64
    learning_rate: Above0 = 2e-3
    weight_decay: Weight = 0.03
    warmup_epochs: Weight = 1.0
    clip_gradient: Above0 = 2.0
    average_decay: Share = 0.998
    """Decay per step of the weight average that is exported."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """auto: bfloat16 on CUDA and on CPUs with matrix units for it, else float32."""


class FunctionalsConfig(Section):
    """The second part of h, and the training of its head after that of the encoder."""

    enabled: bool = True
    """False: h is the output of the encoder only."""
    views: Count = 3
    """Spectral augmentations of each clip as recorded; each waveform variant has one."""
    steps: Positive = 1200
    batch_size: Annotated[int, Field(ge=2)] = 256
    learning_rate: Above0 = 2e-3
    weight_decay: Weight = 0.05
    warmup: Share = 0.1
    """Share of the steps over which the learning rate rises."""
    mixup_p: Share = 0.3
    mixup_alpha: Above0 = 0.4


class SplitConfig(Section):
    """Held-out source speakers, per corpus, balanced by gender where it is known."""

    validation_share: HeldOut = 0.125
    """Temperature, thresholds and vote weight are fitted on these."""
    test_share: HeldOut = 0.125
    """Metrics and ECE are reported on these."""


class Config(Section):
    """A whole recipe."""

    emotions: tuple[Emotion, ...] = ()
    """The emotions to learn; empty for all that the corpora have."""
    front_end: FrontEndConfig = FrontEndConfig()
    encoder: EncoderConfig = EncoderConfig()
    head: HeadConfig = HeadConfig()
    loss: LossConfig = LossConfig()
    augment: AugmentConfig = AugmentConfig()
    train: TrainConfig = TrainConfig()
    functionals: FunctionalsConfig = FunctionalsConfig()
    split: SplitConfig = SplitConfig()

    @model_validator(mode="after")
    def _functionals_can_be_had(self) -> "Config":
        n_mels, hop_length = self.front_end.n_mels, self.front_end.hop_length
        if self.functionals.enabled and (n_mels % 8 or n_mels < 24):
            raise ValueError(
                f"front_end.n_mels is {n_mels}; with functionals it must be a multiple of 8 and at "
                "least 24 (or set functionals.enabled = false)"
            )
        if self.functionals.enabled and hop_length > 320:
            raise ValueError(
                f"front_end.hop_length is {hop_length}; with functionals, which measure changes up "
                "to 24 Hz, it must be at most 320 (or set functionals.enabled = false)"
            )
        return self


def load(path: Path) -> Config:
    """Read a recipe.

    Raises:
        TrainingError: if the file is missing, not TOML, or holds an unknown or impossible value.
    """
    return parse(path, Config)


AnySection = TypeVar("AnySection", bound=Section)


def parse(path: Path, kind: type[AnySection]) -> AnySection:
    """Read a TOML file as the section ``kind``.

    Raises:
        TrainingError: as :func:`load`.
    """
    try:
        return kind.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise TrainingError(f"cannot read the configuration {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise TrainingError(f"{path} is not a TOML file: {error}") from None
    except ValidationError as error:
        raise TrainingError(f"{path}: {_sentence(error.errors()[0])}") from None


_RULES = {
    "greater_than_equal": "it must be at least {ge}",
    "greater_than": "it must be above {gt}",
    "less_than_equal": "it must be at most {le}",
    "less_than": "it must be below {lt}",
    "finite_number": "it must be a finite number",
    "literal_error": "it must be {expected}",
    "too_short": "it must have at least {min_length} values",
}
_TYPES = {"int": "a whole number", "float": "a number", "bool": "true or false", "tuple": "a list"}


def _sentence(error: ErrorDetails) -> str:
    """What is wrong with one field: its name, the value found, and the rule."""
    name = ".".join(str(part) for part in error["loc"])
    if error["type"] == "value_error":  # raised by a section above, as a sentence of ours
        return f"{name}: {error['ctx']['error']}" if name else str(error["ctx"]["error"])
    if error["type"] == "extra_forbidden":
        return f"there is no setting {name}; remove it"
    rule = _RULES.get(error["type"])
    if rule is None:
        kind = _TYPES.get(error["type"].split("_")[0], "a section or value of another type")
        rule = f"it must be {kind}"
    value = error["input"]
    shown = f"{value:g}" if isinstance(value, float) else str(value)
    return f"{name} is {shown}; {rule.format(**error.get('ctx', {}))}"
