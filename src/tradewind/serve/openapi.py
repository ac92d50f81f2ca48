"""The OpenAPI description of a replica's routes."""

from typing import TYPE_CHECKING, Any

import tradewind

if TYPE_CHECKING:
    from tradewind.serve.replica import Replica


def describe(replica: "Replica") -> dict[str, Any]:
    return {"openapi": "3.1.0", "info": {"title": "tradewind", "version": tradewind.__version__}, "paths": {}}
