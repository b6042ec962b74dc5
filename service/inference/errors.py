"""The family of our errors: one sentence each, and what HTTP makes of them.

Every class carries the HTTP status, a title and a code as plain attributes; a subclass without its
own has those of its parent. Whoever raises an error needs to know nothing of HTTP.

``validation_detail`` puts pydantic's findings into our words, for requests, settings and files.
``printable`` is for names of files, which may be any bytes: whatever shows one calls it.
"""

import contextlib
import math
import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from difflib import get_close_matches
from typing import Any, ClassVar

# Bytes that are not UTF-8, and other surrogates; control characters; marks that change the
# direction of text or break lines; what XML does not allow. Joiners stay: Urdu needs them.
_UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ufffe\uffff"
    "\ud800-\udfff]"
)
_ESCAPE = re.compile(r"\\(?:x([0-9a-f]{2})|u([0-9a-f]{4}))")


def printable(name: str | os.PathLike[str]) -> str:
    r"""Write a file name, or text that others chose, so that it can be shown and stored anywhere.

    File names are bytes, and Python keeps those that are not UTF-8 as surrogates, which JSON, CSV,
    terminals and databases refuse. Each becomes ``\xe9``; control characters, and marks that turn
    the direction of text, become ``\x0a`` or ``\u202e``. Anything else stays, a backslash too, so a
    second call changes nothing.

    Args:
        name: a name, path or sentence.

    Returns:
        Text without surrogates and control characters.

    Examples:
        >>> print(printable("caf\udce9 \u202egpj.wav"), printable("گفتگو.wav"))
        caf\xe9 \u202egpj.wav گفتگو.wav
    """
    return _UNPRINTABLE.sub(_escaped, os.fspath(name))


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x80 else f"\\u{code:04x}"


def original_name(shown: str) -> str:
    r"""Find the file name that ``printable`` shows so.

    Where the name itself holds a backslash and hexadecimal digits there are two such names: look
    for ``shown`` first.

    Examples:
        >>> original_name(printable("caf\udce9.wav")) == "caf\udce9.wav"
        True
    """

    def character(found: re.Match[str]) -> str:
        code = int(found[1] or found[2], 16)
        return chr(0xDC00 + code) if found[1] and code >= 0x80 else chr(code)

    return _ESCAPE.sub(character, shown)


class NnpmError(Exception):
    """Base of every error whose message is meant for the user; names in it are made printable.

    Attributes:
        status: of HTTP.
        title: the same for every error of the class.
        code: stable, for programs.
        detail: sent to clients in place of the message, where that names files or hosts of ours.
        retry_after_s: seconds after which a client may try again.
    """

    status: ClassVar[int] = 500
    title: ClassVar[str] = "Unexpected error"
    code: ClassVar[str] = "internal"
    detail: ClassVar[str | None] = (
        "The service made a mistake; its log has the details under this request_id."
    )
    retry_after_s: ClassVar[int | None] = None

    def __str__(self) -> str:
        return printable(super().__str__())


class AudioError(NnpmError):
    """Base of everything that is wrong with one recording."""

    status, code, detail = 422, "bad_audio", None
    title = "The audio cannot be scored"


class NotAudioError(AudioError):
    """The bytes are in no audio format that we read."""

    status, code = 415, "not_audio"
    title = "Unsupported audio format"


class DamagedAudioError(AudioError):
    """Audio of a known format that breaks off, or whose samples are not numbers."""

    code = "damaged_audio"
    title = "The audio is damaged"


class CostlyAudioError(AudioError):
    """Audio whose decoding takes more time or reading than audio of its length should."""

    code = "costly_audio"
    title = "The audio is too costly to decode"


class AudioTooShortError(AudioError):
    """Fewer samples than the shortest clip that can be scored; empty audio included."""

    code = "too_short"
    title = "The audio is too short"


class AudioTooLongError(AudioError):
    """More seconds of audio than the limit."""

    status, code = 413, "too_long"
    title = "The audio is too long"


class NoRoomError(NnpmError):
    """The upload cannot be stored: the disk is full, or cannot be written."""

    status, code, detail, retry_after_s = 503, "storage_full", None, 60
    title = "The disk is full"


class DecoderUnavailableError(NnpmError):
    """The process that decodes audio cannot be started."""

    status, code, detail, retry_after_s = 503, "decoder_unavailable", None, 30
    title = "Audio cannot be decoded now"


class AbandonedError(NnpmError):
    """The client left before the answer; only the log shows it."""

    status, code, detail = 499, "client_left", None
    title = "The client left before the answer"


_abandoned: ContextVar[threading.Event | None] = ContextVar("abandoned", default=None)


@contextlib.contextmanager
def abandonable() -> Iterator[threading.Event]:
    """Let work that is started in this context end early.

    A context variable, and no argument: the work is deep below whoever knows that it is in vain,
    and its context goes along to the thread that does it.

    Yields:
        An event; once it is set, :func:`check_abandoned` raises in that work.
    """
    event = threading.Event()
    token = _abandoned.set(event)
    try:
        yield event
    finally:
        _abandoned.reset(token)


def check_abandoned() -> None:
    """See whether somebody still waits for the answer; called from block to block of long work.

    Raises:
        AbandonedError: if not.
    """
    event = _abandoned.get()
    if event is not None and event.is_set():
        raise AbandonedError("The client closed the connection before the answer.")


class ParameterError(NnpmError):
    """A parameter that is missing, unknown or outside its range."""

    status, code, detail = 422, "bad_parameter", None
    title = "Invalid parameter"


class ExtraMissingError(NnpmError):
    """What was asked for needs packages that are not installed."""

    status, code, detail = 501, "extra_missing", None
    title = "An optional package is not installed"


class TurnsError(AudioError):
    """Given turns that do not fit the recording."""

    code = "bad_turns"
    title = "The turns do not fit the recording"


class BundleError(NnpmError):
    """A bundle that is missing, damaged or not ours."""

    status, code, retry_after_s = 503, "model_unavailable", 30
    title = "The model cannot be loaded"
    detail: ClassVar[str] = "The model's bundle cannot be loaded; the service's log says why."


class OldBaseError(NnpmError):
    """A bundle of the first generation, of which an adaptation was to start.

    Args:
        base: its name, or its folder.
        newer: name of the base to take instead; None for that of this release.
    """

    status, code, detail = 409, "old_base", None
    title = "The base is of an older generation"

    def __init__(self, base: object, newer: str | None = None) -> None:
        super().__init__(
            f"{base} is of the first generation, which answers but cannot be adapted; "
            f"take {newer or 'default/2'} as the base."
        )


def nearest(name: str, known: Iterable[str]) -> str:
    """Ask whether a known name was meant, in a sentence that follows another.

    Returns:
        Empty if none is near.

    Examples:
        >>> nearest("langauge", ["language", "model"])
        ' Did you mean language?'
        >>> nearest("x", ["language", "model"])
        ''
    """
    found = get_close_matches(name[:64], list(known), n=1)
    return f" Did you mean {found[0]}?" if found else ""


def validation_detail(
    errors: Iterable[Mapping[str, Any]],
    *,
    name: Callable[[str], str] = lambda field: field,
    known: Iterable[str] = (),
    document: str = "The document",
    limit: int = 8,
) -> str:
    """Say in one line what is wrong with a document, a query or settings.

    Args:
        errors: as ``pydantic.ValidationError.errors()`` lists them.
        name: what users call a field; it is given the dotted path.
        known: fields that exist; the nearest is proposed for one that does not.
        document: what the fields are in, as the subject of a sentence.
        limit: findings that are told at most.

    Returns:
        One sentence for each finding, in a row. No wording of pydantic is in them.

    Examples:
        >>> found = {"type": "greater_than_equal", "loc": ("top_k",), "input": 0, "ctx": {"ge": 1}}
        >>> validation_detail([found])
        'top_k is 0; it must be at least 1.'
    """
    sentences = []
    for error in list(errors)[:limit]:
        sentence = _sentence(error, name, document)
        if error["type"] == "extra_forbidden" and len(error["loc"]) == 1:
            sentence += nearest(str(error["loc"][0]), known)
        sentences.append(sentence)
    return " ".join(sentences)


def _sentence(error: Mapping[str, Any], name: Callable[[str], str], document: str) -> str:
    kind, context = error["type"], error.get("ctx", {})
    if kind == "value_error":  # of a validator of ours: a sentence already
        return str(context.get("error") or str(error["msg"]).removeprefix("Value error, "))
    if kind == "json_invalid":
        return f"{document} is not valid JSON."
    path = ".".join(str(part) for part in error["loc"])[:64]
    subject = name(path) if path else document
    if kind == "missing":
        return f"{subject} is missing."
    if kind == "extra_forbidden":
        return f"{subject} is not a known field."
    return f"{subject} {_seen(kind, error.get('input'), context)}; it must {_rule(kind, context)}."


def _seen(kind: str, value: Any, context: Mapping[str, Any]) -> str:
    """The number seen, or what stands in its place."""
    match value:
        case None:
            return "is null"
        case bool():
            return f"is {str(value).lower()}"
        case float():
            return f"is {value:g}"
        case str() if kind.startswith("string_too"):
            return f"has {len(value)} character{'s' * (len(value) != 1)}"
        case str() if re.fullmatch(r"[\w.+-]{1,64}", value, re.ASCII) and not kind.endswith(
            "_type"
        ):
            return f"is {value}"
        case list() | tuple() | set() if "actual_length" in context:
            return f"has {context['actual_length']} entries"
        case list() | tuple() | set():
            return "is a list"
        case dict():
            return "is an object"
        case str() | int():
            text = str(value) if isinstance(value, int) and abs(value) < 10**40 else repr(value)
            return f"is {text[:66]}"
        case _:
            return "cannot be used"


def _rule(kind: str, context: Mapping[str, Any]) -> str:
    if (known := _RULES.get(kind)) is not None:
        return known.format(**{key: _number(value) for key, value in context.items()})
    if kind in ("literal_error", "enum"):
        return f"be {str(context['expected']).replace(chr(39), '')}"
    for ending, rule in _RULES_BY_ENDING.items():
        if kind.endswith(ending):
            stem = kind.removesuffix(ending)
            return rule.format(_TYPES.get(stem, "a value that this field takes"))
    return "have the form that the documentation shows"


def _number(value: Any) -> Any:
    return f"{value:g}" if isinstance(value, float) and math.isfinite(value) else value


_RULES = {
    "greater_than_equal": "be at least {ge}",
    "greater_than": "be greater than {gt}",
    "less_than_equal": "be at most {le}",
    "less_than": "be less than {lt}",
    "finite_number": "be a finite number",
    "int_from_float": "be a whole number",
    "string_too_short": "have at least {min_length}",
    "string_too_long": "have at most {max_length}",
    "too_short": "have at least {min_length}",
    "too_long": "have at most {max_length}",
    "string_unicode": "be text in UTF-8",
    "model_attributes_type": "be a JSON object",
}

_RULES_BY_ENDING = {"_type": "be {}", "_parsing": "be {}", "_parsing_size": "be a smaller number"}

_TYPES = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "string": "text",
    "list": "a list",
    "tuple": "a list",
    "set": "a list",
    "frozen_set": "a list",
    "dict": "a JSON object",
    "model": "a JSON object",
    "path": "a path",
}
