"""The audio of a job as a folder: one of the server's, uploaded files, or an archive unpacked.

Also the folders that a request may name, and what is kept of the audio when the job has ended.
"""

import io
import logging
import shutil
import wave
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..files import write_new
from ..inference.audio.decode import decode
from ..inference.audio.formats import PassedOver, why_not_a_recording
from ..inference.audio.waveform import SAMPLE_RATE_HZ, Limits
from ..inference.errors import NnpmError, original_name
from ..settings import Settings
from .archive import IntakeLimits, unpack
from .errors import ArchiveError, FolderRefusedError
from .folder import JobFolder
from .job import Job, Kind
from .labels import MANIFEST


def allowed_folder(text: str, roots: Iterable[Path]) -> Path:
    """Resolve a folder's symbolic links, and check that it lies under an allowed folder.

    JSON cannot hold a name that is not UTF-8: such a folder is named as ``printable`` shows it.

    Only an error about an allowed folder shows whether the folder exists.

    Raises:
        FolderRefusedError: if the folder is not allowed, or cannot be read.
    """
    allowed = [root.resolve() for root in roots]
    if not allowed:
        raise FolderRefusedError(
            "This service accepts no folders: NNPM_ADAPT_ROOTS is not set; send files."
        )
    try:
        folder = Path(text).resolve()
        if not folder.exists():
            folder = Path(original_name(text)).resolve()
    except (OSError, RuntimeError, ValueError):  # a loop of links; a NUL in the name
        raise FolderRefusedError("The folder's name is not a valid path.") from None
    if not Path(text).is_absolute() or not any(folder.is_relative_to(root) for root in allowed):
        raise FolderRefusedError(
            "The folder must be an absolute path under one of the folders in NNPM_ADAPT_ROOTS."
        )
    try:
        if not folder.is_dir():
            raise FolderRefusedError("There is no such folder.")
        next(folder.iterdir(), None)
    except OSError:
        raise FolderRefusedError("The service may not read this folder.") from None
    return folder


MAX_FOLDERS = 1000
"""Most folders that are listed below one root."""


def subfolders(root: Path) -> tuple[list[Path], bool]:
    """List the folders below an allowed one, those that are nearest first.

    Hidden folders, those of NAS devices and operating systems, and links are left out.

    Returns:
        At most :data:`MAX_FOLDERS` paths, and whether there are more.
    """
    found: list[Path] = []
    waiting = deque([root])
    while waiting:
        try:
            inside = sorted(path for path in waiting.popleft().iterdir() if _is_listed(path))
        except OSError:  # it is not ours to read, or has gone
            continue
        for path in inside:
            if len(found) == MAX_FOLDERS:
                return found, True
            found.append(path)
            waiting.append(path)
    return found, False


def _is_listed(path: Path) -> bool:
    inside = Path(path.name) / "a.wav"
    return (
        why_not_a_recording(inside, io.BytesIO) is None and path.is_dir() and not path.is_symlink()
    )


KEPT_S = 60.0
"""Most seconds that are kept of one recording."""

log = logging.getLogger("nnpm")


def keep_changed(folder: JobFolder, target: Path, report: dict[str, Any], limits: Limits) -> None:
    """Keep what people want to hear: the recordings whose answer changed, as 16 kHz WAV.

    They are decoded, and written anew: what a client sent is never sent to a browser. What cannot
    be kept is left out, as the adaptation itself is done.

    Args:
        folder: of the job.
        target: of its recordings.
        report: lists what changed; its numbers are the names of the files.
        limits: for decoding.
    """
    shutil.rmtree(folder.clips, ignore_errors=True)
    folder.clips.mkdir(mode=0o700)
    for number, clip in enumerate(report.get("changed_clips", ())):
        try:
            data = _as_wav(target, clip, limits)
            write_new(folder.clips / f"{number}.wav", data, 0o600)
        except (NnpmError, OSError) as error:
            log.warning("recording %d of job %s is not kept: %s", number, folder.path.name, error)


def _as_wav(target: Path, clip: dict[str, Any], limits: Limits) -> bytes:
    path = target / clip["path"]
    if not path.exists():
        path = target / original_name(clip["path"])
    if not path.resolve().is_relative_to(target.resolve()):
        raise FolderRefusedError("it lies outside of its folder")
    start_s = float(clip.get("start_s") or 0)
    end_s = min(float(clip.get("end_s") or start_s + KEPT_S), start_s + KEPT_S)
    recording = decode(path, limits=limits)
    try:
        start, end = (round(at_s * SAMPLE_RATE_HZ) for at_s in (start_s, end_s))
        samples = recording.waveforms[0].part(start, end).samples
    finally:
        recording.close()
    data = io.BytesIO()
    with wave.open(data, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE_HZ)
        file.writeframes(np.round(32767 * samples).astype("<i2").tobytes())
    return data.getvalue()


FOLDER, ARCHIVE, FILES = "folder:", "archive", "files"
"""``Job.source`` is one of the last two, or begins with the first."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """The audio of a job: a folder, and the members of its archive that are no recordings."""

    folder: Path
    passed_over: PassedOver = field(default_factory=dict)


def prepare(job: Job, folder: JobFolder, settings: Settings, check: Callable[[], None]) -> Prepared:
    """Give the folder with a job's audio; an archive is unpacked first.

    Each claim of a job unpacks into a folder of its own, named by its fencing token: the folder of
    an earlier claim may be half written, and its worker may still be writing.

    Args:
        job: as claimed.
        folder: the job's folder.
        settings: limits, and the allowed folders.
        check: called now and then; an error that it raises ends the work.

    Returns:
        The folder to adapt to, and what was left in the archive.

    Raises:
        IntakeError: if the audio cannot be used.
        OSError: if the job's folder cannot be written.
    """
    check()
    if job.source.startswith(FOLDER):
        named = job.source.removeprefix(FOLDER)
        return Prepared(allowed_folder(named, settings.adapt_roots))
    if job.source == FILES:
        return Prepared(folder.upload)
    archive = next((path for path in folder.upload.glob("*") if path.is_file()), None)
    if archive is None:
        raise ArchiveError("The uploaded archive has been removed; send it again.")
    for old in folder.target.glob("*"):
        if int(old.name) < job.token:
            shutil.rmtree(old, ignore_errors=True)
    target = folder.target / str(job.token)
    limits = IntakeLimits(
        settings.adapt_max_members,
        settings.adapt_max_unpacked_bytes,
        settings.adapt_max_ratio,
        MANIFEST if job.kind is Kind.EVALUATE else "",
    )
    try:
        unpacked = unpack(archive, target, limits, check)
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise
    return Prepared(target, unpacked.passed_over)
