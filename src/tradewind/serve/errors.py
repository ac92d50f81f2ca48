"""The one error a client meets: a status and a sentence."""

from tradewind.errors import TradewindError

MAX_MESSAGE = 1000
"""Characters of a message: what a client sent may be quoted in it, and it goes into the log."""


class RequestError(TradewindError):
    """A request that is not answered with a result; `status` is the HTTP status it becomes."""

    def __init__(self, status: int, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message[:MAX_MESSAGE])
        self.status = status
        self.retry_after_s = retry_after_s
