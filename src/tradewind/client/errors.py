"""How a call can fail; every error names the endpoint, the request id and what to do."""

from tradewind.errors import TradewindError


class ClientError(TradewindError):
    """Root of what a call raises. `request_id` finds the request in the server's log."""

    def __init__(self, message: str, *, endpoint: str = "", status: int = 0) -> None:
        super().__init__(f"{endpoint}: {message}" if endpoint else message)
        self.endpoint = endpoint
        self.status = status
        """The HTTP status; 0 where there was no answer."""
        self.request_id = ""
        self.tries = 0
        """Tries that were begun, hedges not counted."""


class DeadlineExceeded(ClientError):
    """The whole budget of the call went by; more of it, or a lighter request, may help."""


class Refused(ClientError):
    """The server is too busy or not ready (429, 503); ask again after `retry_after_s`, if it says so."""

    def __init__(
        self, message: str, *, endpoint: str = "", status: int = 429, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message, endpoint=endpoint, status=status)
        self.retry_after_s = retry_after_s


class BadRequest(ClientError):
    """The request itself is wrong (4xx): the same request will fail again."""


class Denied(BadRequest):
    """The API key is missing, unknown, or not allowed to do this (401, 403)."""


class ServerFailed(ClientError):
    """The server failed on this request (5xx); its log says why under the request id."""


class Unreachable(ClientError):
    """No connection, or it was lost before the answer began: trying elsewhere is safe."""


class BrokenAnswer(ClientError):
    """The answer was cut off, or is not what the protocol says; not tried again, since it had begun."""
