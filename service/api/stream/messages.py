"""What is said on a stream, besides audio."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StrictInt, ValidationError, model_validator

from service.api.errors import StreamMessageError
from service.api.prediction import HopSeconds, WindowSeconds, require_hop_within
from service.api.problems import Problem
from service.api.schemas import PredictAnswer, SegmentPart
from service.inference.answer import Options, Segment
from service.inference.errors import ParameterError

_HOW = 'send {"sample_rate_hz": 16000, "channels": 1} as text, then 16-bit samples, then an end'


class Hello(BaseModel):
    """The first message: what will come, and how it is to be scored."""

    model_config = ConfigDict(use_attribute_docstrings=True, frozen=True, extra="forbid")

    sample_rate_hz: Annotated[StrictInt, Field(ge=8000, le=48_000)]
    """Of the samples that will come."""

    channels: Annotated[StrictInt, Field(ge=1)]
    """Interleaved in them; their mean is scored."""

    language: str | None = Field(default=None, pattern=r"^[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*$")
    """BCP-47; as for /predict."""

    window_s: WindowSeconds | None = None
    """Seconds per window; the bundle's own otherwise."""

    hop_s: HopSeconds | None = None
    """Seconds from one segment to the next, at most ``window_s``; the bundle's own otherwise."""

    @model_validator(mode="after")
    def _hop_fits_window(self) -> Self:
        require_hop_within(self.window_s, self.hop_s)
        return self

    @property
    def options(self) -> Options:
        """The same in the words of the recognizer."""
        return Options(window_s=self.window_s, hop_s=self.hop_s)

    @classmethod
    def read(cls, text: str, max_channels: int) -> "Hello":
        """Read a first message.

        Raises:
            StreamMessageError: if it is no JSON object.
            ParameterError: one sentence for each field that cannot be used.
        """
        try:
            hello = cls.model_validate_json(text)
        except ValidationError as error:
            found = error.errors()
            if found[0]["type"] in ("json_invalid", "model_type"):
                raise StreamMessageError(f"The first message is no JSON object; {_HOW}.") from None
            raise ParameterError("; ".join(map(_sentence, found[:8]))) from None
        if hello.channels > max_channels:
            raise ParameterError(f"channels is {hello.channels}; 1 to {max_channels} is wanted.")
        return hello


class _End(BaseModel):
    model_config = ConfigDict(extra="forbid")

    end: Literal[True]


def check_end(text: str) -> None:
    """See that a text among audio is the end.

    Raises:
        StreamMessageError: if it is something else.
    """
    try:
        _End.model_validate_json(text)
    except ValidationError:
        raise StreamMessageError(
            'A text that is not {"end": true} came among the audio; samples are binary messages.'
        ) from None


def check_audio(num_bytes: int, channels: int, max_bytes: int) -> None:
    """See that a binary message holds whole frames, and not too many.

    Raises:
        StreamMessageError: otherwise.
    """
    frame_bytes = 2 * channels
    if num_bytes > max_bytes:
        raise StreamMessageError(
            f"A message of {num_bytes} bytes; at most {max_bytes} are accepted: send smaller ones."
        )
    if num_bytes % frame_bytes:
        raise StreamMessageError(
            f"A message of {num_bytes} bytes; a multiple of {frame_bytes} is wanted, "
            f"16-bit samples of {channels} channel{'s' if channels > 1 else ''}."
        )


def first_is_audio() -> StreamMessageError:
    """Make the error of a stream without a hello."""
    return StreamMessageError(f"The first message is audio; {_HOW}.")


def segment_text(segment: Segment) -> str:
    """Write a segment."""
    return _typed("segment", SegmentPart.of(segment).model_dump_json())


def final_text(answer: PredictAnswer) -> str:
    """Write the answer."""
    return _typed("final", answer.to_json())


def error_text(problem: Problem) -> str:
    """Write an error: a problem whose ``type`` says, as in each message, what message it is."""
    return _typed("error", problem.model_dump_json(exclude={"type"}))


def close_code(status: int) -> int:
    """Find the code of RFC 6455 that a connection is closed with after an error."""
    match status:
        case 408 | 404:
            return 1008  # against the rules of this server
        case 413:
            return 1009  # too big
        case 422 | 415:
            return 1007  # not what it should be
        case 503:
            return 1013  # come again later
        case _:
            return 1011


def _typed(kind: str, document: str) -> str:
    return f'{{"type":"{kind}",{document[1:]}'


def _sentence(error: Any) -> str:
    message = str(error["msg"])
    if error["type"] == "value_error":  # of ours: a sentence already
        return message.removeprefix("Value error, ")
    name = ".".join(str(part) for part in error["loc"])[:64]
    if error["type"] == "extra_forbidden":
        return f"{name} is no field that we know."
    if error["type"] == "missing":
        return f"{name} is missing."
    return f"{name}: {message[:1].lower()}{message[1:]}, not {str(error['input'])[:64]!r}."
