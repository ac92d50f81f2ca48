"""Waiting for rank 0."""

import socket
import threading

import pytest

from tradewind.train.meeting import await_rank_0, listens


def test_who_listens_is_known_without_calling() -> None:
    """A port counts from the moment that somebody listens on it, in IPv4 or IPv6, and not when it is only bound, or calls."""
    for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        with socket.socket(family) as server:
            server.bind((address, 0))
            port = server.getsockname()[1]
            assert listens(port) is False
            server.listen()
            assert listens(port) is True
            with socket.create_connection((address, port)) as caller:
                assert listens(caller.getsockname()[1]) is False
        assert listens(port) is False


def test_the_others_wait_for_rank_0(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rank 1 goes on once the port is listened on; rank 0, and ranks of other hosts, at once."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
        monkeypatch.setenv("MASTER_PORT", str(server.getsockname()[1]))
        await_rank_0(0)
        went_on = threading.Event()
        waiting = threading.Thread(target=lambda: (await_rank_0(1), went_on.set()))
        waiting.start()
        assert not went_on.wait(0.1)
        server.listen()
        assert went_on.wait(30)
        waiting.join()
        monkeypatch.setenv("MASTER_ADDR", "10.1.2.3")
        monkeypatch.setenv("MASTER_PORT", "1")
        await_rank_0(1)
