"""The client of a service for asyncio."""

import asyncio
import ssl
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Self, TypeVar

from .answer import Answer
from .audio import Audio, Samples, blocks, pcm
from .client import URL
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
    from websockets.asyncio.client import ClientConnection

T = TypeVar("T")


class AsyncClient:
    """The same for asyncio: methods, arguments, results, errors are :class:`nnpm.Client`'s.

    Examples:
        >>> async def score(path: str) -> str | None:
        ...     async with AsyncClient("https://emotion.example.org", "nnpm_key") as client:
        ...         return (await client.predict(path, language="ur")).emotion
    """

    def __init__(
        self, url: str = URL, key: str | None = None, *, timeout_s: float = 300.0, **http: Any
    ) -> None:
        require_httpx()
        import httpx2

        self.url = service_url(url)
        self._headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        self._http = httpx2.AsyncClient(
            base_url=self.url, headers=self._headers, timeout=timeout_s, **http
        )
        self._lost = httpx2.HTTPError
        verify = http.get("verify")
        self._ssl = verify if isinstance(verify, ssl.SSLContext) else None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def predict(self, audio: Audio, sample_rate: int | None = None, **options: Any) -> Answer:
        """As :meth:`nnpm.Client.predict`."""
        return await self._send(Calls.predict(audio, sample_rate, options))

    async def predict_batch(
        self, recordings: Iterable[Any], **options: Any
    ) -> list[Answer | Error]:
        """As :meth:`nnpm.Client.predict_batch`."""
        calls = Calls.batches(recordings, options)
        return [item for call in calls for item in await self._send(call)]

    async def stream(
        self,
        audio: Samples | Iterable[Samples] | AsyncIterable[Samples],
        sample_rate: int,
        *,
        channels: int = 1,
        **options: Any,
    ) -> AsyncIterator[Segment | Answer]:
        """As :meth:`nnpm.Client.stream`; ``audio`` may be an asynchronous iterator."""
        from websockets.asyncio.client import connect
        from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

        try:
            socket = await connect(
                websocket_url(self.url),
                additional_headers=self._headers,
                ssl=self._ssl,
                max_queue=None,
                compression=None,
            )
        except InvalidStatus as error:
            raise problem(error.response.status_code, error.response.body) from None
        except (OSError, InvalidHandshake) as error:
            raise unreachable(self.url, error) from error
        first = hello(sample_rate, channels, options)
        sending = asyncio.create_task(_speak(socket, first, audio, channels))
        try:
            while True:
                message = read_message(await socket.recv())
                yield message
                if isinstance(message, Answer):
                    return
        except ConnectionClosed as error:
            (own,) = await asyncio.gather(sending, return_exceptions=True)
            if isinstance(own, Exception):
                raise own from None
            raise unreachable(self.url, error) from error
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            await socket.close()

    async def adapt(
        self,
        recordings: Recordings | None = None,
        *,
        folder_on_server: str | None = None,
        wait: bool = False,
        progress: OnJob | None = None,
        idempotency_key: str | None = None,
        **request: Any,
    ) -> Job:
        """As :meth:`nnpm.Client.adapt`."""
        call = Calls.adapt(recordings, folder_on_server, idempotency_key, request)
        job = await self._send(call)
        return await self.wait(job, progress) if wait or progress else job

    async def wait(
        self, job: Job | str, progress: OnJob | None = None, *, timeout_s: float | None = None
    ) -> Job:
        """As :meth:`nnpm.Client.wait`."""
        watch = Watch(progress, timeout_s)
        now = await self.job(job) if isinstance(job, str) else job
        while not watch.ended(now):
            await asyncio.sleep(watch.pause_s())
            now = await self.job(now.id)
        return now

    async def job(self, id: str) -> Job:  # noqa: A002 - the job's own word
        """As :meth:`nnpm.Client.job`."""
        return await self._send(Calls.job(id))

    async def jobs(self, limit: int = 100) -> list[Job]:
        """As :meth:`nnpm.Client.jobs`."""
        return await self._send(Calls.jobs(limit))

    async def cancel(self, id: str) -> Job:  # noqa: A002
        """As :meth:`nnpm.Client.cancel`."""
        return await self._send(Calls.job(id, "DELETE"))

    async def report(self, id: str) -> dict[str, Any]:  # noqa: A002
        """As :meth:`nnpm.Client.report`."""
        return await self._document("GET", "adapt", id, "report")

    async def models(self) -> list[dict[str, Any]]:
        """As :meth:`nnpm.Client.models`."""
        return await self._send(Calls.models())

    async def model(self, name: str, version: str | None = None) -> dict[str, Any]:
        """As :meth:`nnpm.Client.model`."""
        return await self._document("GET", "models", name, *filter(None, [version]))

    async def promote(self, name: str, version: str, language: str | None = None) -> dict[str, Any]:
        """As :meth:`nnpm.Client.promote`."""
        body = {"version": version, "language": language}
        return await self._document("POST", "models", name, "promote", body=body)

    async def rollback(self, name: str, language: str | None = None) -> dict[str, Any]:
        """As :meth:`nnpm.Client.rollback`."""
        return await self._document("POST", "models", name, "rollback", body={"language": language})

    async def delete_model(self, name: str, version: str) -> None:
        """As :meth:`nnpm.Client.delete_model`."""
        await self._send(Calls.document("DELETE", "models", name, version))

    async def ready(self) -> bool:
        """As :meth:`nnpm.Client.ready`."""
        try:
            await self._send(Calls.document("GET", "health", "ready"))
        except Error as error:
            if error.code in ("unreachable", "not_ready") or error.status == 503:
                return False
            raise
        return True

    async def _document(
        self, method: str, *path: str, body: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        found: dict[str, Any] = await self._send(Calls.document(method, *path, body=body))
        return found

    async def _send(self, call: Call[T]) -> T:
        with ExitStack() as stack:
            arguments = await asyncio.to_thread(call.opened, stack)  # it may pack an archive
            try:
                response = await self._http.request(call.method, call.path, **arguments)
            except self._lost as error:
                raise unreachable(self.url, error) from error
            return call.result(response)


async def _speak(
    socket: "ClientConnection",
    first: str,
    audio: Samples | Iterable[Samples] | AsyncIterable[Samples],
    channels: int,
) -> None:
    """Send a stream; whatever goes wrong here ends the connection, and with it the reading."""
    from websockets.exceptions import ConnectionClosed

    try:
        await socket.send(first)
        if isinstance(audio, AsyncIterable):
            async for block in audio:
                for part in pcm(block, channels):
                    await socket.send(part)
        else:
            for block in blocks(audio):
                for part in pcm(block, channels):
                    await socket.send(part)
        await socket.send(END)
    except ConnectionClosed:  # the reader knows why
        pass
    except BaseException:
        await socket.close(1001)
        raise
