"""HTTP/1.1 as a model server needs it: whole requests with their arrival times in, answers in order out."""

from tradewind.serve.http.connection import App, Limits, Pending
from tradewind.serve.http.listener import Listener
from tradewind.serve.http.message import JSON, Request, Response, failure, json_response
from tradewind.serve.http.turns import Turn, Turns

__all__ = [
    "JSON",
    "App",
    "Limits",
    "Listener",
    "Pending",
    "Request",
    "Response",
    "Turn",
    "Turns",
    "failure",
    "json_response",
]
