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


class StorageError(NnpmError):
    """What was sent cannot be kept: the disk is full, or refuses."""


class NoReportError(NnpmError):
    """A job that has no report, or none yet."""


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
