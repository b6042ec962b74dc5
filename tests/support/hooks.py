"""A server that takes callbacks."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Received(list[tuple[str, dict[str, str], bytes]]):
    """Path, headers and body of every request, in order; the next statuses are taken from a list.

    A status of 0 sends a byte now and then, and never ends.
    """

    def __init__(self, statuses: list[int]) -> None:
        super().__init__()
        self.statuses = statuses
        self.port = 0
        self.end = threading.Event()


@contextmanager
def receiving(*statuses: int) -> Iterator[Received]:
    received = Received(list(statuses))

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received.append((self.path, dict(self.headers), body))
            status = received.statuses.pop(0) if received.statuses else 204
            while status == 0 and not received.end.is_set():
                try:
                    self.wfile.write(b"H")
                except OSError:
                    return
                time.sleep(0.02)
            self.send_response(status or 500)
            if status == 302:
                self.send_header("Location", f"http://127.0.0.1:{received.port}/elsewhere")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        received.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield received
        finally:
            received.end.set()
            server.shutdown()
            thread.join()
