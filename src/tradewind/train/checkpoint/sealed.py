"""JSON that carries a digest of itself, so that whoever reads it knows that it is what was written."""

import hashlib
import json
from collections.abc import Callable
from typing import Any

from tradewind.errors import IntegrityError

Body = dict[str, Any]


def encode(value: Any) -> bytes:
    """The one encoding of a value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def seal(body: Body) -> bytes:
    """The bytes of a body with its digest."""
    return encode(body | {"digest": hashlib.sha256(encode(body)).hexdigest()})


def unseal(
    raw: bytes, where: object, form: str, is_sound: Callable[[Body], bool] = lambda body: True
) -> Body:
    """The body that was sealed, its `format` being `form`.

    Raises IntegrityError, naming `where`, when the bytes are not those that were written, or `is_sound`
    says no; what it raises of ValueError, KeyError or TypeError counts as not parsing.
    """
    try:
        body: Body = json.loads(raw)
        if body["format"] != form:
            raise IntegrityError(f"{where} has format {body['format']!r}; this version reads {form!r}")
        del body["digest"]
        same = seal(body) == raw and is_sound(body)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise IntegrityError(f"{where} is damaged: it does not parse") from error
    if not same:
        raise IntegrityError(f"{where} is damaged: it does not match its own digest")
    return body
