"""What can be wrong with audio that is handed over; one sentence each."""

from service.inference.errors import NnpmError


class IntakeError(NnpmError):
    """Base of everything that is wrong with what was handed over."""


class ArchiveError(IntakeError):
    """An archive that is none, is damaged, or that nobody should unpack."""


class FolderRefusedError(IntakeError):
    """A folder that is not under an allowed one, or not there."""
