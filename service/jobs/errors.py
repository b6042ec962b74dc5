"""What can be wrong with jobs and their store; one sentence each.

What can be wrong with audio that is handed over; one sentence each.
"""

from ..inference.errors import NnpmError


class UnknownJobError(NnpmError):
    """A job that the store does not hold."""


class LostLeaseError(NnpmError):
    """A worker that writes about a job which another one has, or which has ended."""


class TransitionError(NnpmError):
    """A state that a job cannot go to from where it is."""


class KeyTakenError(NnpmError):
    """An idempotency key that its owner has used for a job before."""


class StoreUnavailableError(NnpmError):
    """A database that cannot be reached or used now; later it may be."""


class StoreConfigurationError(NnpmError):
    """A database URL, or what it needs, that cannot work however often it is tried."""


class CancelledError(NnpmError):
    """A job whose work stops because somebody asked for that."""


class IntakeError(NnpmError):
    """Base of everything that is wrong with what was handed over."""


class ArchiveError(IntakeError):
    """An archive that is none, is damaged, or that nobody should unpack."""


class FolderRefusedError(IntakeError):
    """A folder that is not under an allowed one, or not there."""
