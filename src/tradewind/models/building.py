"""What is known of compiling where it is asked for: how to run the process that does it, and what that says. No torch."""

import os
import sys

import msgspec

from tradewind.errors import TradewindError


class Built(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one program: built now, there already, or neither, and why."""

    program: str
    built: bool = False
    seconds: float = 0.0
    error: str = ""


def command(package: str, digest: str = "") -> list[str]:
    """Return what to run; it writes a line of JSON, a `Built`, for each program on its standard output."""
    return [sys.executable, "-m", "tradewind.models.builder", package, "--digest", digest]


def check_end(code: int) -> None:
    """Raise TradewindError where the process did not end by itself; its own errors it has told."""
    if code not in (0, 1):
        raise TradewindError(f"the process that compiles ended with code {code}")


def environment() -> dict[str, str]:
    """Return what it is run with: one thread, so that compiling takes one core."""
    return os.environ | {"OMP_NUM_THREADS": "1", "TORCHINDUCTOR_COMPILE_THREADS": "1"}
