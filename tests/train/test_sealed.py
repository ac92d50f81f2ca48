"""JSON that knows whether it is what was written."""

import json

import pytest

from tradewind.errors import IntegrityError
from tradewind.train.checkpoint.sealed import encode, seal, unseal

BODY = {"format": "test/1", "files": {"a": 1, "b": [2, 3]}}


def test_what_was_sealed_comes_back() -> None:
    """A body comes back as it was, without its digest."""
    assert unseal(seal(BODY), "here", "test/1") == BODY


def test_any_flipped_bit_is_refused() -> None:
    """No bit of the bytes can be another one without an error that names the place."""
    raw = seal(BODY)
    for position in range(len(raw) * 8):
        flipped = bytearray(raw)
        flipped[position // 8] ^= 1 << position % 8
        with pytest.raises(IntegrityError, match="here"):
            unseal(bytes(flipped), "here", "test/1")


def test_another_encoding_of_the_same_is_refused() -> None:
    """There is one encoding, so bytes that say the same in another way were not written by us."""
    with pytest.raises(IntegrityError, match="its own digest"):
        unseal(json.dumps(json.loads(seal(BODY))).encode(), "here", "test/1")


@pytest.mark.parametrize(
    ("is_sound", "why"),
    [(lambda body: False, "its own digest"), (lambda body: body["absent"], "does not parse")],
)
def test_an_unsound_body_is_refused(is_sound, why) -> None:  # type: ignore[no-untyped-def]
    """A body whose digest is right is still refused when its reader finds it wrong."""
    with pytest.raises(IntegrityError, match=why):
        unseal(seal(BODY), "here", "test/1", is_sound)


def test_other_formats_and_other_things_are_refused() -> None:
    """Another format is named; what is no object with a format does not parse."""
    with pytest.raises(IntegrityError, match="'test/1'; this version reads 'test/2'"):
        unseal(seal(BODY), "here", "test/2")
    for raw in (b"", b"[]", b"{}", b"null", encode({"format": "test/1"})):
        with pytest.raises(IntegrityError, match="does not parse"):
            unseal(raw, "here", "test/1")
