"""The part of a kubelet that serves logs: the API server asks it for those of pods on its node."""

import http.server
import pathlib
import ssl
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.services.kubernetes import ControlPlane


class Log:
    """What one container has written; readers that follow it wait for more."""

    def __init__(self) -> None:
        self.text, self.ended = b"", False
        self.changed = threading.Condition()

    def write(self, text: str, end: bool = False) -> None:
        """More output, and perhaps the last."""
        with self.changed:
            self.text += text.encode()
            self.ended = self.ended or end
            self.changed.notify_all()

    def read(self, follow: bool) -> Iterator[bytes]:
        """The output so far, and what comes while it is followed."""
        sent = 0
        while True:
            with self.changed:
                self.changed.wait_for(lambda sent=sent: not follow or self.ended or len(self.text) > sent)
                data, over = self.text[sent:], not follow or self.ended
            sent += len(data)
            yield data
            if over:
                return


class FileLog(Log):
    """What a process has written into a file."""

    def __init__(self, path: pathlib.Path, has_ended: Callable[[], bool]) -> None:
        super().__init__()
        self._path, self._has_ended = path, has_ended

    def read(self, follow: bool) -> Iterator[bytes]:
        """The output so far, and what comes while it is followed."""
        with self._path.open("rb") as file:
            over = False
            while not over:
                over = not follow or self.ended or self._has_ended()
                yield file.read()
                if not over:
                    time.sleep(0.05)  # Nobody says that a file grew.


class KubeletLogs:
    """Logs by (pod, container, whether of an earlier life), served to the API server."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.logs: dict[tuple[str, str, bool], Log] = {}
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(folder / "tls.crt", folder / "tls.key")
        self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    @property
    def port(self) -> int:
        """Where it listens on loopback."""
        return int(self._server.server_address[1])

    def log(self, pod: str, container: str = "agent", previous: bool = False) -> Log:
        """The log of a container, empty at first."""
        return self.logs.setdefault((pod, container, previous), Log())

    def stop(self) -> None:
        """End every log, and the server."""
        for log in self.logs.values():
            log.write("", end=True)
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def _handler(kubelet: KubeletLogs) -> Any:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            address = urllib.parse.urlsplit(self.path)
            asked = dict(urllib.parse.parse_qsl(address.query))
            _, _, _, pod, container = address.path.split("/")
            log = kubelet.logs.get((pod, container, asked.get("previous") == "true"))
            self.send_response(200 if log else 404)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for data in log.read(asked.get("follow") == "true") if log else [b"no such log"]:
                if data:
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
            self.wfile.write(b"0\r\n\r\n")

        def log_message(self, *args: Any) -> None:
            """Nothing."""

    return Handler


@pytest.fixture
def kubelet_logs(kubernetes: ControlPlane) -> Iterator[KubeletLogs]:
    """A server of logs; a node finds it by `daemonEndpoints.kubeletEndpoint.Port`."""
    server = KubeletLogs(kubernetes.folder)
    yield server
    server.stop()
