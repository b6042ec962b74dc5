"""What can be wrong with jobs, their store, and the audio of an adaptation."""

from ..inference.errors import NnpmError


class UnknownJobError(NnpmError):
    """A job that the store does not hold."""

    status, code, detail = 404, "unknown_job", None
    title = "Unknown job"


class LostLeaseError(NnpmError):
    """A worker that writes about a job which another worker has, or which has ended."""


class TransitionError(NnpmError):
    """A state that a job cannot go to from where it is."""


class KeyTakenError(NnpmError):
    """An idempotency key that its owner has used for a job before."""

    status, code, detail = 409, "key_taken", None
    title = "The Idempotency-Key was used before"


class AdaptationOffError(NnpmError):
    """A job for a service that only predicts."""

    status, code, detail = 403, "adaptation_off", None
    title = "This service does not adapt"


class StoreUnavailableError(NnpmError):
    """A database that cannot be reached or used now; later it may be."""

    status, code, retry_after_s = 503, "store_unavailable", 10
    title = "The job database is unavailable"
    detail = "The job database cannot be used now; the service's log says why."


class StoreConfigurationError(NnpmError):
    """A database URL, or what it needs, that cannot work however often it is tried."""


class CancelledError(NnpmError):
    """A job whose work stops because somebody asked for that."""


class IntakeError(NnpmError):
    """Base of everything that is wrong with the audio of an adaptation."""

    status, code, detail = 422, "bad_intake", None
    title = "The upload or folder cannot be used"


class ArchiveError(IntakeError):
    """An archive that is none, is damaged, or is not safe to unpack."""


class ArchiveTooLargeError(ArchiveError):
    """An archive of more members, or more bytes, than the limit."""


class FolderRefusedError(IntakeError):
    """A folder that is missing, or not under an allowed one."""


class CallbackRefusedError(NnpmError):
    """A callback_url that this service does not call."""

    status, code, detail = 422, "callback_refused", None
    title = "The callback_url is refused"
