"""Times as the Kubernetes API writes them."""

import datetime


def seconds(text: str | None) -> float | None:
    """Unix seconds of a time as the API writes it."""
    return None if text is None else datetime.datetime.fromisoformat(text).timestamp()
