"""What is stored of a user, fetched inside the request's deadline: from Redis, or from a file.

`encode(history, user)` makes the value that belongs under a user's key.
"""

from tradewind.serve.features.base import Fetched, Outcome, Source, Stored, encode

__all__ = ["Fetched", "Outcome", "Source", "Stored", "encode"]
