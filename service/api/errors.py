"""Errors that only a request can have; problems.py has their status codes."""

from service.inference.errors import NnpmError


class UploadTooLargeError(NnpmError):
    """More bytes than the limit."""


class UnsupportedBodyError(NnpmError):
    """A Content-Type that carries no audio."""


class BadFormError(NnpmError):
    """A multipart form that cannot be read, or lacks its file."""


class OverloadedError(NnpmError):
    """The queue is full."""


class NotReadyError(NnpmError):
    """The default model is not loaded yet."""


class ExtraMissingError(NnpmError):
    """What was asked for needs packages that are not installed."""


class NoReportError(NnpmError):
    """A job that has no report, or none yet."""


class RefusedError(NnpmError):
    """A request that is refused for who sent it, or how, before anything reads it.

    Args:
        message: the number seen and the number wanted, and what to do.
        **headers: of the answer; ``_`` stands for ``-``.
    """

    def __init__(self, message: str, **headers: str) -> None:
        super().__init__(message)
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


class KeyMissingError(RefusedError):
    """A request without a key, where one is wanted."""


class KeyUnknownError(RefusedError):
    """A key that nobody made, or that was revoked."""


class ScopeMissingError(RefusedError):
    """A key that is not for this."""


class RateLimitError(RefusedError):
    """More requests than one may send in a while."""


class WrongHostError(RefusedError):
    """A name under which the service is not called."""


class ForeignOriginError(RefusedError):
    """A page of elsewhere drives a browser."""


class HeadTooLargeError(RefusedError):
    """Headers that are too many or too long."""


class TargetTooLongError(RefusedError):
    """A path and query that are too long."""


class TooSlowError(RefusedError):
    """A client that takes too long to send."""


class TooManyConnectionsError(RefusedError):
    """More connections than there may be."""


class StreamMessageError(NnpmError):
    """A message of a stream that is none: no hello, text among audio, half a sample."""


class StreamIdleError(NnpmError):
    """A stream on which nothing came for too long."""


class TooManyStreamsError(NnpmError):
    """As many streams as may be are open."""


class InferenceRequestError(NnpmError):
    """A request of the Open Inference Protocol that cannot be used."""


class BodyEncodingError(NnpmError):
    """A compressed body."""
