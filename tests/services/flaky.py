"""A proxy before a real HTTP server that spoils some requests, and counts what it spoiled."""

import contextlib
import http.client
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

Choose = Callable[[str, str], str]
"""What to do with a request, from its method and path: `pass`, `refuse` (503), `drop` or `cut`."""


class Flaky(ThreadingHTTPServer):
    """Forwards to `target`; `drop` closes without an answer, `cut` closes in the middle of one."""

    daemon_threads = True

    def __init__(self, target: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.address = urlsplit(target).netloc
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.choose: Choose = lambda method, path: "pass"
        self.seen: Counter[str] = Counter()
        """Requests by method, and spoiled ones by how."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Flaky

    def forward(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        fate = self.server.choose(self.command, self.path)
        self.server.seen.update([self.command, fate])
        if fate == "drop":
            self.close_connection = True
            return
        if fate == "refuse":
            self.answer(503, {}, b"")
            return
        upstream = http.client.HTTPConnection(self.server.address, timeout=30)
        try:
            upstream.request(self.command, self.path, body, dict(self.headers))
            response = upstream.getresponse()
            content = response.read()
        finally:
            upstream.close()
        self.answer(response.status, dict(response.headers), content, cut=fate == "cut")

    def answer(self, status: int, headers: dict[str, str], body: bytes, cut: bool = False) -> None:
        lower = {name.lower(): value for name, value in headers.items()}
        lower.pop("transfer-encoding", None)
        if self.command != "HEAD":
            lower["content-length"] = str(len(body))
        self.send_response(status)
        for name, value in lower.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if cut else body)
        self.close_connection = cut

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = forward

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def flaky(target: str) -> Iterator[Flaky]:
    """A proxy on loopback before `target` that passes everything until its `choose` is set."""
    with Flaky(target) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
