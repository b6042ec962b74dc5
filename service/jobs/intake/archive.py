"""Unpacking archives that strangers made: zip, tar, tar.gz, tar.zst."""

import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from service.inference.files import AUDIO_SUFFIXES
from service.jobs.intake.budget import Budget, IntakeLimits
from service.jobs.intake.errors import ArchiveError
from service.jobs.intake.members import members
from service.jobs.intake.names import Places, safe_path

__all__ = ["IntakeLimits", "unpack"]

_CHUNK_BYTES = 1 << 20


def unpack(archive: Path, into: Path, limits: IntakeLimits) -> int:
    """Write the audio files of an archive into a new folder; everything else is passed over.

    Archives within the archive are not opened. Names are made safe, and keep what can be kept.

    Args:
        archive: zip, tar, tar.gz or tar.zst, told by its first bytes.
        into: is made; on an error it is left behind, for whoever called to remove.
        limits: counted while reading: what headers say is not believed.

    Returns:
        How many files were written.

    Raises:
        ArchiveError: if it is none of these, damaged, encrypted, too large, or holds links,
            devices, or names that lead out of it.
        OSError: if the folder cannot be written.
    """
    into.mkdir(parents=True)
    budget, written = Budget(archive.stat().st_size, limits), Budget(archive.stat().st_size, limits)
    places, count = Places(into), 0
    with _reading(), archive.open("rb") as file:
        for number, member in enumerate(members(file, budget, limits), start=1):
            if number > limits.max_members:
                raise ArchiveError(
                    f"The archive holds more than {limits.max_members} members; cut it into parts."
                )
            path = safe_path(member.name)
            if not member.is_file or member.data is None or not path:
                continue
            if path.suffix.lower() not in AUDIO_SUFFIXES:
                continue
            with places.open(path) as out:
                while chunk := member.data.read(_CHUNK_BYTES):
                    written.spend(len(chunk))
                    out.write(chunk)
            count += 1
    if not count:
        raise ArchiveError(
            f"The archive holds no audio; looked for {', '.join(sorted(AUDIO_SUFFIXES))}."
        )
    return count


@contextmanager
def _reading() -> Iterator[None]:
    """Whatever the libraries say of a damaged archive becomes one error."""
    import zstandard

    try:
        yield
    except (
        tarfile.TarError, zipfile.BadZipFile, zlib.error, zstandard.ZstdError, EOFError,
        NotImplementedError, RuntimeError, ValueError, LookupError, struct.error, OverflowError,
    ) as error:  # fmt: skip
        raise ArchiveError("The archive is damaged, or packed in a way that we lack.") from error
    except OSError as error:
        if error.errno is None:  # of gzip: not the disk
            raise ArchiveError("The archive is damaged.") from error
        raise
