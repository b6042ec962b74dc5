"""What an archive may hold, counted while it is read: what its headers say is not believed."""

from dataclasses import dataclass
from typing import BinaryIO

from service.jobs.intake.errors import ArchiveError

_FREE_BYTES = 16 << 20
"""Unpacked bytes up to which no ratio is too high: silence packs very well."""


@dataclass(frozen=True, slots=True)
class IntakeLimits:
    """What an archive may hold.

    Attributes:
        max_members: of all kinds.
        max_unpacked_bytes: of all that is unpacked.
        max_ratio: of unpacked bytes to the archive's.
    """

    max_members: int
    max_unpacked_bytes: int
    max_ratio: int


class Budget:
    """Counts unpacked bytes.

    Args:
        packed_bytes: of the archive.
        limits: of what comes out of it.
    """

    def __init__(self, packed_bytes: int, limits: IntakeLimits) -> None:
        self._packed = max(1, packed_bytes)
        self._limits = limits
        self._spent = 0

    def spend(self, num_bytes: int) -> None:
        """Count bytes.

        Raises:
            ArchiveError: if they are too many.
        """
        self._spent += num_bytes
        if self._spent > self._limits.max_unpacked_bytes:
            raise ArchiveError(
                f"The archive unpacks to more than {self._limits.max_unpacked_bytes} bytes; cut it "
                "into parts."
            )
        if self._spent > max(_FREE_BYTES, self._packed * self._limits.max_ratio):
            raise ArchiveError(
                f"The archive's {self._packed} bytes unpack to more than {self._limits.max_ratio} "
                "times as many, as no recordings do."
            )


class Metered:
    """An unpacked stream whose every byte is counted, and whose headers stay short.

    tarfile holds a header in memory, however long a name it claims to have; and what lies between
    the recordings costs time as they do.

    Args:
        stream: is read once, from start to end.
        budget: pays for it.
        header_bytes: most bytes before the first member, and between two.
    """

    def __init__(self, stream: BinaryIO, budget: Budget, header_bytes: int) -> None:
        self._stream = stream
        self._budget = budget
        self._header_bytes = header_bytes
        self._room = header_bytes

    def expect(self, num_bytes: int) -> None:
        """Let a member of so many bytes, and a header after it, be read."""
        self._room = self._header_bytes + max(0, num_bytes)

    def read(self, size: int = -1) -> bytes:
        """Read on.

        Raises:
            ArchiveError: if that is too much.
        """
        data = self._stream.read(size)
        self._budget.spend(len(data))
        self._room -= len(data)
        if self._room < 0:
            raise ArchiveError(
                f"The archive has more than {self._header_bytes} bytes of names and attributes for "
                "one member; pack it anew."
            )
        return data
