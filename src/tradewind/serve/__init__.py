"""One replica: requests with deadlines in, answers from a model in a worker process out."""

from tradewind.serve.errors import RequestError

__all__ = ["RequestError"]
