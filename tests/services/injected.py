"""Starts `http_server.py` as a process of its own, so that it never shares an interpreter with a test."""

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple


class Injected(NamedTuple):
    """A running server with known faults."""

    url: str

    def seen(self) -> dict[str, Any]:
        """What the server counted so far."""
        with urllib.request.urlopen(f"{self.url}/seen", timeout=10) as response:
            counted: dict[str, Any] = json.load(response)
        return counted


@contextmanager
def injected_server(**rules: Any) -> Iterator[Injected]:
    """A server on loopback that follows the rules named in `http_server.py`."""
    program = Path(__file__).with_name("http_server.py")
    with subprocess.Popen(
        [sys.executable, str(program), json.dumps(rules)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        port = process.stdout.readline().split()[1]
        yield Injected(f"http://127.0.0.1:{port}")
        process.stdin.close()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
