"""Workers' output on the agent's own: every line once, after its rank, over attempts."""

import signal
from pathlib import Path

from tradewind.agent.echo import Echo


def test_every_line_is_printed_once_after_its_rank(tmp_path: Path) -> None:
    """Lines that are there, that come, of a later attempt, and the last one without an end."""
    found: list[tuple[str, bytes]] = []
    first, second = tmp_path / "logs" / "attempt0", tmp_path / "logs" / "attempt1"
    first.mkdir(parents=True)
    (first / "rank0.log").write_bytes(b"one\ntw")
    with Echo(tmp_path / "logs", lambda rank, line: found.append((rank, line))):
        with (first / "rank0.log").open("ab") as log:
            log.write(b"o\n")
        second.mkdir()
        (second / "rank11.log").write_bytes(b"three\n\xff four")
    assert sorted(found) == [
        ("rank0", b"one"),
        ("rank0", b"two"),
        ("rank11", b"three"),
        ("rank11", b"\xff four"),
    ]


def test_signals_are_left_to_the_main_thread(tmp_path: Path) -> None:
    """A SIGTERM that comes while the agent starts must not find a thread that has not blocked it."""
    blocked: list[set[int]] = []
    (tmp_path / "attempt0").mkdir()
    (tmp_path / "attempt0" / "rank0.log").write_bytes(b"one\n")
    with Echo(tmp_path, lambda *_: blocked.append(set(signal.pthread_sigmask(signal.SIG_BLOCK, ())))):
        pass
    assert {signal.SIGTERM, signal.SIGINT} <= blocked[0]
    assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
