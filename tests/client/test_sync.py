"""The client for threads, and what importing it costs."""

import subprocess
import sys
import threading

import pytest

from tests.services.scripted import WAIT_S, scripted_server
from tradewind.client import Client, Options, Unreachable

PATIENT = Options(deadline_ms=30_000)


def test_threads_share_a_client_and_a_closed_one_says_so() -> None:
    """Many threads call at once; after `close` a call is an error, not a hang."""
    with scripted_server("ok") as server:
        client = Client(server.url, PATIENT)
        answers: list[str] = []
        threads = [
            threading.Thread(target=lambda: answers.append(client.recommend(["1"]).items[0].item))
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        client.close()
        client.close()
    assert answers == ["a"] * 8
    with pytest.raises(RuntimeError, match="closed"):
        client.recommend(["1"])


def test_closing_ends_a_call_in_flight() -> None:
    """A thread that waits for an answer hears of the close."""
    with scripted_server("hold") as server:
        client = Client(server.url, PATIENT._replace(retry_share=0.0))
        errors: list[BaseException] = []

        def ask() -> None:
            try:
                client.recommend(["1"])
            except Unreachable as error:
                errors.append(error)

        thread = threading.Thread(target=ask)
        thread.start()
        assert server.held.acquire(timeout=WAIT_S)
        client.close()
        thread.join(WAIT_S)
        assert server.left.acquire(timeout=WAIT_S)
    assert len(errors) == 1


def test_the_client_is_light() -> None:
    """Importing it loads neither torch nor numpy nor the server."""
    code = "import sys, tradewind.client; print([m for m in ('torch','numpy','tradewind.serve') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
