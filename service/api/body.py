"""The audio of a request: a multipart part named ``file``, or the whole body."""

import contextlib
from collections.abc import AsyncIterator
from tempfile import SpooledTemporaryFile
from typing import BinaryIO, cast

from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

from service.api.errors import BadFormError, UnsupportedBodyError, UploadTooLargeError

_IN_MEMORY_BYTES = 1 << 20
_RAW = ("", "application/octet-stream")
_HOW = "send multipart/form-data with the recording as the part 'file' (curl -F file=@clip.wav)"


@contextlib.asynccontextmanager
async def audio_body(request: Request) -> AsyncIterator[BinaryIO]:
    """Receive the audio of a request into a file that is gone afterwards.

    Up to 1 MiB stays in memory; the rest goes into an unnamed file.

    Raises:
        UnsupportedBodyError: if the Content-Type carries no audio.
        BadFormError: if the form is malformed or lacks its file.
    """
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type == "multipart/form-data":
        receive = _form_file(request)
    elif content_type.startswith(("audio/", "video/")) or content_type in _RAW:
        receive = raw_body(request)
    else:
        raise UnsupportedBodyError(
            f"Content-Type {content_type[:64]!r}; {_HOW}, or the audio itself as audio/*, video/* "
            "or application/octet-stream."
        )
    async with receive as file:
        yield file


@contextlib.asynccontextmanager
async def _form_file(request: Request) -> AsyncIterator[BinaryIO]:
    try:
        form = await request.form(max_files=1, max_fields=16)
    except HTTPException as error:
        raise BadFormError(f"{error.detail} One file is wanted: {_HOW}.") from error
    except ValueError as error:  # of a charset that decodes nothing
        raise BadFormError(f"The form's charset cannot be decoded; {_HOW}.") from error
    try:
        files = [part for part in form.getlist("file") if isinstance(part, UploadFile)]
        if not files:
            raise BadFormError(f"{_without_file(form)}; {_HOW}.")
        yield files[0].file
    finally:
        await form.close()


def _without_file(form: FormData) -> str:
    if "file" in form:
        return "The part 'file' is text, not a file"
    names = ", ".join(repr(name[:64]) for name in form) or "none"
    return f"No file named 'file' among the parts ({names})"


@contextlib.asynccontextmanager
async def raw_body(request: Request, max_bytes: int | None = None) -> AsyncIterator[BinaryIO]:
    """Receive the whole body into a file that is gone afterwards.

    Raises:
        UploadTooLargeError: if it has more than ``max_bytes``.
    """
    spool = SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES)  # noqa: SIM115 (closed below)
    upload = UploadFile(cast(BinaryIO, spool), size=0)  # its write leaves the loop for the disk
    try:
        async for chunk in request.stream():
            await upload.write(chunk)
            if max_bytes is not None and (upload.size or 0) > max_bytes:
                raise UploadTooLargeError(
                    f"{upload.size} bytes or more; at most {max_bytes} are accepted here: send "
                    "less at a time."
                )
        await upload.seek(0)
        yield upload.file
    finally:
        await upload.close()
