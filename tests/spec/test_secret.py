"""What is secret in addresses."""

import pytest

from tradewind.spec.secret import masked


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("redis://h:6379/0", "redis://h:6379/0"),
        ("redis://:p@h/0 is down", "redis://***@h/0 is down"),
        ("'rediss://u:p/w@x@h/0?a=b'", "'rediss://***@h/0?a=b'"),
        ("redis://h/0?password=p&db=1", "redis://h/0?password=***&db=1"),
        ("redis://h/0?ssl_password=p", "redis://h/0?ssl_password=***"),
        ("mail a@b about it", "mail a@b about it"),
    ],
)
def test_credentials_are_masked_and_nothing_else(text: str, shown: str) -> None:
    assert masked(text) == shown
