"""The Python client of a Tradewind endpoint; it loads no torch, and numpy only for inference."""

from tradewind.client.aio import AsyncClient
from tradewind.client.call import Inference, Item, Recommendation
from tradewind.client.errors import (
    BadRequest,
    BrokenAnswer,
    ClientError,
    DeadlineExceeded,
    Denied,
    Refused,
    ServerFailed,
    Unreachable,
)
from tradewind.client.retry import RetryPolicy
from tradewind.client.sender import Options
from tradewind.client.sync import Client

__all__ = [
    "AsyncClient",
    "BadRequest",
    "BrokenAnswer",
    "Client",
    "ClientError",
    "DeadlineExceeded",
    "Denied",
    "Inference",
    "Item",
    "Options",
    "Recommendation",
    "Refused",
    "RetryPolicy",
    "ServerFailed",
    "Unreachable",
]
