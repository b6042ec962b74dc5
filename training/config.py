"""The recipe of a training run: one TOML file, checked when it is read; every default is here."""

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

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


class Section(BaseModel):
    """A section of a configuration: documented, checked and immutable fields."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class EncoderConfig(Section):
    """The pretrained encoder."""

    family: str = "whisper"
    """whisper, huggingface (wav2vec 2.0, HuBERT, WavLM), onnx, one of an installed package (entry
    point ``nnpm.encoders``), or ``package.module:Class``."""
    source: str = "openai/whisper-base"
    """A local folder in transformers' layout (or an ONNX file), or an id of the model hub."""
    layers: Count = 3
    """How many of its transformer layers are used, from the first; 0 uses all."""


class FrozenConfig(Section):
    """Lower stages of the encoder that do not learn, and what they give, computed once."""

    stages: Count = 0
    """How many do not learn: Whisper's first is its second convolution, then each layer is one; of
    wav2vec 2.0 and kin each layer. What lies beneath never learns."""
    copies: Count = 0
    """Of each clip, varied once, whose states beneath what learns are computed before the first
    step and kept in the run's folder; steps take crops of them. 0 keeps nothing: every step varies
    its clips anew, and runs the whole encoder."""
    largest_gib: Above0 = 8.0
    """Of the kept states, in GiB."""


class HeadConfig(Section):
    """Sizes of the head: projection and classifier."""

    projection: Positive = 256
    """Width of z, the feature that the memory compares."""
    dropout: Share = 0.2
    logit_scale: Above0 = 10.0
    """Initial factor of the cosine logits (learnt, at most 30)."""
    momentum: Share = 0.1
    """Of a batch in the running statistics of its corpus."""


class LossConfig(Section):
    """Weights of the source losses."""

    label_smoothing: Share = 0.05
    listeners: Share = 0.5
    """Share of what listeners heard in the target of a clip, where the corpus tells it."""
    contrast_weight: Weight = 0.3
    """Of the supervised contrast between corpora."""
    contrast_temperature: Above0 = 0.15
    multilabel_weight: Weight = 0.1
    """Of the memory's multilabel loss, whose positives are of other corpora."""
    multilabel_positive: Weight = 1.0
    """delta of the multilabel loss (method.md, part 5)."""
    hard_negative_share: Share = 0.02
    memory_momentum: Share = 0.5
    memory_start: Share = 0.4
    """Share of the steps before the memory's loss starts; the memory is collected until then."""


class AugmentConfig(Section):
    """Crops of the training clips, and what is changed besides their waveforms."""

    shortest_s: Annotated[float, Field(ge=0.5, le=10.0)] = 1.5
    longest_s: Annotated[float, Field(ge=0.5, le=10.0)] = 3.2
    """Every clip is cut at random to a length between the two, so that it tells nothing."""
    change: bool = True
    """Change the waveforms: speed, microphone, room and noise."""
    join_p: Share = 0.12
    """Of joining two clips of one speaker and emotion (CopyPaste)."""
    mask_p: Share = 0.6
    """Of a gap in time and one in frequency (SpecAugment), in a batch; for Whisper."""

    @model_validator(mode="after")
    def _shortest_first(self) -> "AugmentConfig":
        if self.shortest_s > self.longest_s:
            raise ValueError(
                f"shortest_s is {self.shortest_s:g}; it must be at most longest_s "
                f"({self.longest_s:g})"
            )
        return self


class TrainConfig(Section):
    """The training loop."""

    steps: Positive = 500
    batch_size: Annotated[int, Field(ge=4)] = 48
    """Clips per step, about; every corpus has its share, by the square root of its size."""
    fewest_per_corpus: Positive = 8
    """Clips of each corpus per step, at least."""
    head_steps: Count = 80
    """First steps, which train the head alone: a random head would spoil the encoder."""
    warmup_steps: Count = 60
    encoder_rate: Above0 = 5e-5
    """Learning rate of the encoder's top stage."""
    layer_decay: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    """Factor of the rate from one stage to the one below it."""
    head_rate: Above0 = 1e-3
    weight_decay: Weight = 0.01
    clip_gradient: Above0 = 5.0
    average_from: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.67
    """Share of the steps after which the weights are averaged; the average is what counts."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """auto: bfloat16 on CUDA and on CPUs that multiply in it, else float32."""


class SplitConfig(Section):
    """Held-out source speakers, per corpus, balanced by gender where it is known."""

    held_out_share: HeldOut = 0.125
    """Temperature, thresholds and vote weight are fitted on these, and figures are theirs: each
    speaker's by a fit on the others."""


class Config(Section):
    """A whole recipe."""

    emotions: tuple[Emotion, ...] = tuple(e for e in EMOTIONS if e != "calm")
    """The emotions to learn; empty for all that the corpora have. Calm is left out: one corpus has
    it, and nobody else tells it from neutral."""
    encoder: EncoderConfig = EncoderConfig()
    frozen: FrozenConfig = FrozenConfig()
    head: HeadConfig = HeadConfig()
    loss: LossConfig = LossConfig()
    augment: AugmentConfig = AugmentConfig()
    train: TrainConfig = TrainConfig()
    split: SplitConfig = SplitConfig()


def load(path: Path, changes: Sequence[str] = ()) -> Config:
    """Read a recipe.

    Args:
        path: of the TOML file.
        changes: ``section.name=value`` each, as ``--set`` takes them; they override the file.

    Raises:
        TrainingError: if the file is missing, not TOML, or holds an unknown or impossible value.
    """
    return parse(path, Config, changes)


AnySection = TypeVar("AnySection", bound=Section)


def parse(path: Path, kind: type[AnySection], changes: Sequence[str] = ()) -> AnySection:
    """Read a TOML file as the section ``kind``, with changes as :func:`load` takes them.

    Raises:
        TrainingError: as :func:`load`.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
        for change in changes:
            _set(document, change)
        return kind.model_validate(document)
    except OSError as error:
        raise TrainingError(f"cannot read the configuration {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise TrainingError(f"{path} is not a TOML file: {error}") from None
    except ValidationError as error:
        raise TrainingError(f"{path}: {_sentence(error.errors()[0])}") from None


def _set(document: dict[str, Any], change: str) -> None:
    """Apply ``section.name=value``; a value that is not TOML is a string."""
    name, equals, text = change.partition("=")
    *sections, last = name.strip().split(".")
    if not equals or not last:
        raise TrainingError(f"--set is {change!r}; it must be section.name=value")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    for section in sections:
        document = document.setdefault(section, {})
        if not isinstance(document, dict):
            raise TrainingError(f"--set is {change!r}; {section} is no section")
    document[last] = value


_RULES = {
    "greater_than_equal": "it must be at least {ge}",
    "greater_than": "it must be above {gt}",
    "less_than_equal": "it must be at most {le}",
    "less_than": "it must be below {lt}",
    "finite_number": "it must be a finite number",
    "literal_error": "it must be {expected}",
    "too_short": "it must have at least {min_length} values",
}
_TYPES = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "string": "text",
    "tuple": "a list",
}


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
