"""The one table from error to status, and the body of every error: RFC 9457 problem details."""

from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from service.api import errors as api_errors
from service.inference import errors
from service.jobs import errors as job_errors
from service.jobs.intake.errors import IntakeError
from service.registry import registry

MEDIA_TYPE = "application/problem+json"


@dataclass(frozen=True, slots=True)
class Kind:
    """What one class of errors is to a client.

    Attributes:
        status: HTTP status.
        title: the same for every error of the kind.
        code: stable, for programs.
        detail: replaces the error's message where that is not for the client.
        retry_after_s: when to come back.
    """

    status: int
    title: str
    code: str
    detail: str | None = None
    retry_after_s: int | None = None


KINDS: dict[type[Exception], Kind] = {
    errors.AudioError: Kind(422, "The audio cannot be scored", "bad_audio"),
    errors.NotAudioError: Kind(415, "Not audio that we read", "not_audio"),
    errors.DamagedAudioError: Kind(422, "The audio is damaged", "damaged_audio"),
    errors.CostlyAudioError: Kind(422, "The audio is too costly to decode", "costly_audio"),
    errors.AudioTooShortError: Kind(422, "The audio is too short", "too_short"),
    errors.AudioTooLongError: Kind(413, "The audio is too long", "too_long"),
    errors.NoRoomError: Kind(503, "No room", "storage_full", retry_after_s=60),
    errors.ParameterError: Kind(422, "A parameter is out of range", "bad_parameter"),
    errors.BundleError: Kind(
        503,
        "The model cannot be loaded",
        "model_unavailable",
        detail="The model's bundle cannot be loaded; the service's log says why.",
        retry_after_s=30,
    ),
    registry.UnknownModelError: Kind(404, "There is no such model", "unknown_model"),
    registry.ModelInUseError: Kind(409, "The version is in use", "model_in_use"),
    registry.NothingToRollBackError: Kind(409, "Nothing to roll back", "nothing_to_roll_back"),
    registry.RegistryError: Kind(
        503,
        "The registry cannot be used",
        "registry_unavailable",
        detail="The models folder cannot be read or written; the service's log says why.",
        retry_after_s=30,
    ),
    IntakeError: Kind(422, "What was handed over cannot be used", "bad_intake"),
    job_errors.UnknownJobError: Kind(404, "There is no such job", "unknown_job"),
    job_errors.KeyTakenError: Kind(409, "The key was used before", "key_taken"),
    job_errors.TransitionError: Kind(409, "The job cannot go there", "job_state"),
    job_errors.LostLeaseError: Kind(409, "The job is another's", "lost_lease"),
    job_errors.CancelledError: Kind(409, "The job is cancelled", "cancelled"),
    job_errors.StoreUnavailableError: Kind(
        503,
        "The jobs cannot be reached",
        "store_unavailable",
        detail="The database of jobs cannot be used now; the service's log says why.",
        retry_after_s=10,
    ),
    job_errors.StoreConfigurationError: Kind(
        503,
        "The jobs cannot be reached",
        "store_misconfigured",
        detail="The database of jobs is not set up; the service's log says why.",
        retry_after_s=60,
    ),
    api_errors.UploadTooLargeError: Kind(413, "The upload is too large", "too_large"),
    api_errors.UnsupportedBodyError: Kind(415, "Not a body that carries audio", "bad_content_type"),
    api_errors.BadFormError: Kind(422, "The form cannot be read", "bad_form"),
    api_errors.OverloadedError: Kind(503, "The queue is full", "overloaded", retry_after_s=1),
    api_errors.ExtraMissingError: Kind(501, "An extra is not installed", "extra_missing"),
    api_errors.NoReportError: Kind(404, "There is no report", "no_report"),
    api_errors.StreamMessageError: Kind(422, "Not a message of a stream", "bad_message"),
    api_errors.StreamIdleError: Kind(408, "Nothing came for too long", "idle"),
    api_errors.TooManyStreamsError: Kind(
        503, "Too many streams", "too_many_streams", retry_after_s=10
    ),
    api_errors.InferenceRequestError: Kind(
        422, "The tensors cannot be used", "bad_inference_request"
    ),
    api_errors.BodyEncodingError: Kind(415, "A compressed body", "bad_content_encoding"),
    api_errors.NotReadyError: Kind(503, "Not ready yet", "not_ready", retry_after_s=2),
    api_errors.KeyMissingError: Kind(401, "A key is wanted", "key_missing"),
    api_errors.KeyUnknownError: Kind(401, "The key is not known", "key_unknown"),
    api_errors.ScopeMissingError: Kind(403, "The key is not for this", "scope_missing"),
    api_errors.ForeignOriginError: Kind(403, "A page of elsewhere", "foreign_origin"),
    api_errors.WrongHostError: Kind(421, "Not the name of this service", "wrong_host"),
    api_errors.RateLimitError: Kind(429, "Too many requests", "rate_limited"),
    api_errors.TooSlowError: Kind(408, "Too slow", "too_slow"),
    api_errors.RefusedError: Kind(400, "No valid request", "bad_request"),
    api_errors.TargetTooLongError: Kind(414, "The path is too long", "target_too_long"),
    api_errors.HeadTooLargeError: Kind(431, "The headers are too large", "head_too_large"),
    api_errors.TooManyConnectionsError: Kind(
        503, "Too many connections", "too_many_connections", retry_after_s=5
    ),
    Exception: Kind(
        500,
        "Unexpected error",
        "internal",
        detail="The service made a mistake; its log has the details under this request_id.",
    ),
}


class Problem(BaseModel):
    """An error, as in RFC 9457."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    type: str
    """URI of the kind of problem."""
    title: str
    """The same for every problem of this kind."""
    status: int
    """The HTTP status again."""
    detail: str
    """What was seen, and what is wanted."""
    code: str
    """The kind of problem, for programs."""
    request_id: str = ""
    """As in the X-Request-ID header."""


class InferenceProblem(Problem):
    """An error under /v2, for clients of problem details and of the Open Inference Protocol."""

    error: str
    """``detail`` again, where the protocol wants it."""


def kind_of(error: Exception) -> Kind:
    """Find the kind of an error through its class tree."""
    return next(KINDS[cls] for cls in type(error).__mro__ if cls in KINDS)


def problem_of(error: Exception) -> Problem:
    """Describe an error that met no request of its own: an item among many."""
    kind = kind_of(error)
    return describe(kind, kind.detail or str(error))


def describe(kind: Kind, detail: str, **more: str) -> Problem:
    """Describe one error of a kind; ``more`` may hold the request's id."""
    return Problem(
        type=f"urn:nnpm:problem:{kind.code}",
        title=kind.title,
        status=kind.status,
        detail=detail,
        code=kind.code,
        **more,
    )
