"""The one error of the Python interface."""

import contextlib
import json
from collections.abc import Iterator

from .service.inference.errors import NnpmError, ParameterError, printable


class Error(Exception):
    """What nnpm cannot do, here or at a service; its text says what was seen, and what to do.

    The fields are those of the service's error documents (RFC 9457), also where no service is
    asked.

    Attributes:
        status: of HTTP: 422 for a recording that cannot be scored, 404 for an unknown model, and
            so on; 0 where a service could not be reached.
        code: short and stable, for programs; docs/use/errors.md lists them.
        title: the same for every error of the code.
        detail: what was seen, what is allowed, and what to do.
        request_id: of the request, as in the service's log; None where no service was asked.

    Examples:
        >>> import nnpm
        >>> try:
        ...     nnpm.load("./nowhere")
        ... except nnpm.Error as error:
        ...     print(error.status, error.code)
        503 model_unavailable
    """

    def __init__(
        self, detail: str, *, status: int, code: str, title: str, request_id: str | None = None
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.status = status
        self.code = code
        self.title = title
        self.request_id = request_id

    @classmethod
    def of(cls, error: NnpmError) -> "Error":
        """Make it from an error of the rooms below."""
        return cls(str(error), status=error.status, code=error.code, title=error.title)


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Raise an error of the rooms below, or of the disk, as :class:`Error`."""
    try:
        yield
    except NnpmError as error:
        raise Error.of(error) from error
    except OSError as error:
        place = f"{printable(str(error.filename))}: " if error.filename else ""
        raise Error(
            f"{place}{error.strerror or error}",
            status=500,
            code="disk",
            title="Files cannot be used",
        ) from error


def problem(status: int, body: bytes | bytearray) -> Error:
    """Make an error from a problem document; any other body is of a proxy."""
    try:
        found = json.loads(body)
        return Error(
            str(found["detail"]), status=int(found["status"]), code=str(found["code"]),
            title=str(found["title"]), request_id=found.get("request_id"),
        )  # fmt: skip
    except (ValueError, LookupError, TypeError):
        return Error(
            f"The answer is {status} without a document of nnpm's; something between client and "
            "service refused the request: check the address and the proxy.",
            status=status, code="http_error", title="Refused on the way",
        )  # fmt: skip


def unreachable(url: str, error: Exception) -> Error:
    """Make the error of a service that cannot be reached, or is lost."""
    why = str(error) or type(error).__name__
    return Error(
        f"{url} gave no answer ({why}); check that the service runs, and its address.",
        status=0, code="unreachable", title="Service cannot be reached",
    )  # fmt: skip


def unusable(detail: str) -> Error:
    """Make the error of an argument that cannot be used."""
    return Error.of(ParameterError(detail))
