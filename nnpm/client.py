"""A client of a service, over HTTP and WebSocket, that waits; async_client.py has its twin.

Both send what requests.py describes.
"""

import contextlib
import ssl
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Self, TypeVar

from .answer import Answer
from .audio import Audio, Samples, blocks, pcm
from .errors import Error, problem, unreachable
from .requests import (
    END,
    Call,
    Calls,
    Job,
    OnJob,
    Recordings,
    Watch,
    hello,
    read_message,
    require_httpx,
    service_url,
    websocket_url,
)
from .service.inference.answer import Segment

if TYPE_CHECKING:
    from websockets.sync.client import ClientConnection

T = TypeVar("T")

URL = "http://127.0.0.1:8000"


class Client:
    """A client of one service; use it as a context manager, or close it.

    Args:
        url: of the service, with the path prefix if a proxy adds one.
        key: an API key, if the service needs one.
        timeout_s: seconds without a byte after which a request is given up.
        **http: more arguments of ``httpx2.Client``: ``verify``, ``proxy``, ``transport``, …

    Raises:
        Error: if httpx2, of the extra ``client``, is not installed. All methods raise it if the
            service refuses a request or cannot be reached.

    Examples:
        >>> client = Client("https://emotion.example.org", "nnpm_key")
        >>> client.url
        'https://emotion.example.org'
        >>> client.close()
    """

    def __init__(
        self, url: str = URL, key: str | None = None, *, timeout_s: float = 300.0, **http: Any
    ) -> None:
        require_httpx()
        import httpx2

        self.url = service_url(url)
        self._headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        self._http = httpx2.Client(
            base_url=self.url, headers=self._headers, timeout=timeout_s, **http
        )
        self._lost = httpx2.HTTPError
        verify = http.get("verify")
        self._ssl = verify if isinstance(verify, ssl.SSLContext) else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def predict(self, audio: Audio, sample_rate: int | None = None, **options: Any) -> Answer:
        """Score one recording: ``POST /predict``.

        Args:
            audio: as for :meth:`nnpm.Model.predict`.
            sample_rate: of an array, in Hz.
            **options: parameters of ``POST /predict``, such as ``language="ur"``.
        """
        return self._send(Calls.predict(audio, sample_rate, options))

    def predict_batch(self, recordings: Iterable[Any], **options: Any) -> list[Answer | Error]:
        """Score many files: ``POST /predict/batch``, as often as it takes.

        Args:
            recordings: paths.
            **options: as of :meth:`predict`.

        Returns:
            One item per path, in order: the answer, or the error of a file that cannot be scored.
        """
        calls = Calls.batches(recordings, options)
        return [item for call in calls for item in self._send(call)]

    def stream(
        self,
        audio: Samples | Iterable[Samples],
        sample_rate: int,
        *,
        channels: int = 1,
        **options: Any,
    ) -> Iterator[Segment | Answer]:
        """Score a recording while it is made: ``WS /stream``.

        Args:
            audio: blocks as they are recorded: samples of shape ``(num_samples,)``, for several
                channels ``(channels, num_samples)``, or 16-bit PCM as bytes. Or one block.
            sample_rate: in Hz.
            channels: of the blocks.
            **options: of the first message: ``language``, ``window_s``, ``hop_s``, ``digits``.

        Yields:
            Segments as they come, and last the answer for the whole.
        """
        from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
        from websockets.sync.client import connect

        with contextlib.ExitStack() as stack:
            try:
                socket = stack.enter_context(
                    connect(
                        websocket_url(self.url),
                        additional_headers=self._headers,
                        ssl=self._ssl,
                        max_queue=None,
                        compression=None,
                    )
                )
            except InvalidStatus as error:
                raise problem(error.response.status_code, error.response.body) from None
            except (OSError, InvalidHandshake) as error:
                raise unreachable(self.url, error) from error
            try:
                socket.send(hello(sample_rate, channels, options))
                for block in blocks(audio):
                    for part in pcm(block, channels):
                        socket.send(part)
                        yield from _arrived(socket)
                socket.send(END)
            except ConnectionClosed:  # what it sent before says why
                pass
            try:
                while True:
                    message = read_message(socket.recv())
                    yield message
                    if isinstance(message, Answer):
                        return
            except ConnectionClosed as error:
                raise unreachable(self.url, error) from error

    def adapt(
        self,
        recordings: Recordings | None = None,
        *,
        folder_on_server: str | None = None,
        wait: bool = False,
        progress: OnJob | None = None,
        idempotency_key: str | None = None,
        **request: Any,
    ) -> Job:
        """Start an adaptation: ``POST /adapt``.

        Args:
            recordings: a folder (its audio is sent as one archive), an archive, or paths.
            folder_on_server: instead: a folder under one of the service's NNPM_ADAPT_ROOTS.
            wait: return when the job has ended; its ``state`` says how.
            progress: called with the job whenever it changes; it implies ``wait``.
            idempotency_key: the same request with the same key gives the same job.
            **request: fields of ``POST /adapt``: ``language``, ``name``, ``base``, ``method``,
                ``auto_promote``, ``force``, ….
        """
        job = self._send(Calls.adapt(recordings, folder_on_server, idempotency_key, request))
        return self.wait(job, progress) if wait or progress else job

    def wait(
        self, job: Job | str, progress: OnJob | None = None, *, timeout_s: float | None = None
    ) -> Job:
        """Wait for the end of a job.

        Args:
            job: or its id.
            progress: called with the job whenever it changes.
            timeout_s: seconds to wait at most; no limit by default.

        Raises:
            Error: with the code ``timeout``; the job goes on.
        """
        watch = Watch(progress, timeout_s)
        now = self.job(job) if isinstance(job, str) else job
        while not watch.ended(now):
            time.sleep(watch.pause_s())
            now = self.job(now.id)
        return now

    def job(self, id: str) -> Job:  # noqa: A002 - the job's own word
        """Show a job: ``GET /adapt/{id}``."""
        return self._send(Calls.job(id))

    def jobs(self, limit: int = 100) -> list[Job]:
        """List the jobs of this key, newest first: ``GET /adapt``."""
        return self._send(Calls.jobs(limit))

    def cancel(self, id: str) -> Job:  # noqa: A002
        """Cancel a job: ``DELETE /adapt/{id}``."""
        return self._send(Calls.job(id, "DELETE"))

    def report(self, id: str) -> dict[str, Any]:  # noqa: A002
        """Return the report of a job as a document: ``GET /adapt/{id}/report``."""
        return self._document("GET", "adapt", id, "report")

    def models(self) -> list[dict[str, Any]]:
        """List the models, with versions and aliases: ``GET /models``."""
        return self._send(Calls.models())

    def model(self, name: str, version: str | None = None) -> dict[str, Any]:
        """Show a model, or one version of it: ``GET /models/{name}``, ``…/{version}``."""
        return self._document("GET", "models", name, *filter(None, [version]))

    def promote(self, name: str, version: str, language: str | None = None) -> dict[str, Any]:
        """Let a version answer for a language: ``POST /models/{name}/promote``."""
        body = {"version": version, "language": language}
        return self._document("POST", "models", name, "promote", body=body)

    def rollback(self, name: str, language: str | None = None) -> dict[str, Any]:
        """Undo a promotion: ``POST /models/{name}/rollback``."""
        return self._document("POST", "models", name, "rollback", body={"language": language})

    def delete_model(self, name: str, version: str) -> None:
        """Delete a version that no alias uses: ``DELETE /models/{name}/{version}``."""
        self._send(Calls.document("DELETE", "models", name, version))

    def ready(self) -> bool:
        """Whether the service can score recordings: ``GET /health/ready``."""
        try:
            self._send(Calls.document("GET", "health", "ready"))
        except Error as error:
            if error.code in ("unreachable", "not_ready") or error.status == 503:
                return False
            raise
        return True

    def _document(
        self, method: str, *path: str, body: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        found: dict[str, Any] = self._send(Calls.document(method, *path, body=body))
        return found

    def _send(self, call: Call[T]) -> T:
        with ExitStack() as stack:
            arguments = call.opened(stack)
            try:
                response = self._http.request(call.method, call.path, **arguments)
            except self._lost as error:
                raise unreachable(self.url, error) from error
            return call.result(response)


def _arrived(socket: "ClientConnection") -> Iterator[Segment | Answer]:
    """The messages that are there already."""
    with contextlib.suppress(TimeoutError):
        while True:
            yield read_message(socket.recv(timeout=0))
