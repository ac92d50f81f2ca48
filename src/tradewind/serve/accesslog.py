"""One line per answered request; at high rates only what went wrong on our side, and a count of the rest."""

import time
from collections.abc import Callable
from typing import Literal

import structlog

Mode = Literal["auto", "all", "off"]
AUTO_PER_S = 100


class AccessLog:
    """Writes access lines. `auto` writes every request up to `AUTO_PER_S`, beyond that only 5xx answers."""

    def __init__(self, mode: Mode = "auto", clock: Callable[[], float] = time.monotonic) -> None:
        self._mode = mode
        self._clock = clock
        self._log = structlog.get_logger()
        self._second = 0
        self._written = 0
        self._left_out = 0

    def write(self, route: str, request_id: str, code: int, seconds: float, error: str = "") -> None:
        if self._mode == "off" or (self._mode == "auto" and not self._room() and code < 500):
            self._left_out += 1
            return
        more: dict[str, object] = {"error": error} if error else {}
        if self._left_out:
            more["left_out"], self._left_out = self._left_out, 0
        self._log.info(
            "request", request_id=request_id, route=route, code=code, ms=round(seconds * 1e3, 3), **more
        )

    def _room(self) -> bool:
        second = int(self._clock())
        if second != self._second:
            self._second, self._written = second, 0
        self._written += 1
        return self._written <= AUTO_PER_S
