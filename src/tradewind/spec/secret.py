"""What is secret in an address is not shown to anybody."""

import re

_USER = re.compile(r"://\S*@")
_PASSWORD = re.compile(r"([?&]\w*(?:password|secret|token)=)[^&\s]*", re.IGNORECASE)


def masked(text: str) -> str:
    """Return the text without the credentials of the URLs in it."""
    return _PASSWORD.sub(r"\1***", _USER.sub("://***@", text))
