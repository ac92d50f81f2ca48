"""What is asked and what came of it: requests as bytes, answers as results or errors."""

import secrets
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

import msgspec

from tradewind import names
from tradewind.client.connection import Address, Answer
from tradewind.client.errors import BadRequest, BrokenAnswer, ClientError, Denied, Refused, ServerFailed
from tradewind.errors import SpecError

if TYPE_CHECKING:
    from tradewind.client.tensors import Array, Port

LENGTH = "inference-header-content-length"


class Call(NamedTuple):
    """One request, before it is known where it goes and how much time is left for it."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: Sequence[bytes]
    request_id: str

    def to_bytes(self, address: Address, left_ms: float) -> list[bytes]:
        """The request as it is sent to `address` with `left_ms` left of its budget."""
        size = sum(map(len, self.body))
        head = (
            f"{self.method} {address.path}{self.path} HTTP/1.1\r\nhost: {address.authority}\r\n"
            f"{names.HEADER_DEADLINE}: {left_ms:.3f}\r\n{names.HEADER_REQUEST_ID}: {self.request_id}\r\n"
            f"content-length: {size}\r\n"
        )
        head += "".join(f"{name}: {value}\r\n" for name, value in self.headers.items())
        return [f"{head}\r\n".encode("latin-1"), *self.body]


class Item(msgspec.Struct, frozen=True):
    """One recommended item."""

    item: str
    score: float


class Recommendation(msgspec.Struct, frozen=True):
    """Items, best first."""

    model: str
    """Name and version of what answered."""
    items: list[Item]
    level: str | None = None
    """The quality level that answered, where the endpoint has several."""
    request_id: str = ""


class Inference(NamedTuple):
    """The outputs of a model by name."""

    outputs: "dict[str, Array]"
    model: str
    version: str
    level: str | None
    request_id: str

    def __getitem__(self, name: Any) -> Any:
        """The output of that name; also by position, as a tuple."""
        return self.outputs[name] if isinstance(name, str) else tuple.__getitem__(self, name)


class _Error(msgspec.Struct, frozen=True):
    error: str


_decode_recommendation = msgspec.json.Decoder(Recommendation, strict=False).decode
_decode_error = msgspec.json.Decoder(_Error).decode


def make(
    method: str,
    path: str,
    body: Sequence[bytes] = (),
    *,
    headers: Mapping[str, str] | None = None,
    request_id: str | None = None,
) -> Call:
    """A call with its id. Raises SpecError when a header cannot be sent."""
    headers = headers or {}
    request_id = request_id or secrets.token_hex(12)
    for name, value in (*headers.items(), (names.HEADER_REQUEST_ID, request_id)):
        if not f"{name}{value}".isprintable() or not f"{name}{value}".isascii() or ":" in name or not name:
            raise SpecError(f"header {name!r}: a header is printable ASCII on one line, not {value!r}")
    return Call(method, path, headers, body, request_id)


def recommend_body(
    history: Sequence[Any] | None,
    k: int | None,
    user: Mapping[str, float] | None,
    exclude_seen: bool,
    now: float | None,
    filter: object = None,
    user_id: str | int | None = None,
) -> bytes:
    """The body of `POST /v1/recommend`; what is left to the server is left out."""
    body: dict[str, Any] = {"history": list(history)} if history is not None else {}
    body |= {"user_id": user_id} if user_id is not None else {}
    body |= {"k": k} if k is not None else {}
    body |= {"user": dict(user)} if user else {}
    body |= {} if exclude_seen else {"exclude_seen": False}
    body |= {"now": now} if now is not None else {}
    body |= {"filter": filter} if filter is not None else {}
    return msgspec.json.encode(body)


def model_path(model: str, version: str | None) -> str:
    """The path of a model, or of one of its versions."""
    path = f"/v2/models/{quote(model, safe='')}"
    return f"{path}/versions/{quote(version, safe='')}" if version else path


def infer_call(
    model: str,
    version: str | None,
    inputs: Mapping[str, Any],
    ports: "Mapping[str, Port]",
    outputs: Sequence[str],
    parameters: Mapping[str, Any] | None,
    headers: Mapping[str, str],
    request_id: str | None,
) -> Call:
    """The call of one inference; all its tensors are sent and asked for as binary data."""
    from tradewind.client.tensors import encode

    head, buffers = encode(inputs, ports, outputs, parameters)
    headers = {**headers, "content-type": "application/octet-stream", LENGTH: str(len(head))}
    path = f"{model_path(model, version)}/infer"
    return make("POST", path, [head, *buffers], headers=headers, request_id=request_id)


def check(answer: Answer, endpoint: str) -> None:
    """Raise what an answer other than 200 means."""
    if answer.status == 200:
        return
    raise _error(answer, endpoint)


def _error(answer: Answer, endpoint: str) -> ClientError:
    status = answer.status
    try:
        text = _decode_error(answer.body).error
    except msgspec.MsgspecError:
        text = answer.body[:200].decode("utf-8", "replace")
    message = f"{status}: {text}"
    if status in (429, 503):
        after = _seconds(answer.headers.get("retry-after"))
        return Refused(message, endpoint=endpoint, status=status, retry_after_s=after)
    if status in (401, 403):
        return Denied(message, endpoint=endpoint, status=status)
    kind = BadRequest if 400 <= status < 500 else ServerFailed if status >= 500 else BrokenAnswer
    return kind(message, endpoint=endpoint, status=status)


def _seconds(text: str | None) -> float | None:
    """Seconds of a `Retry-After`; None for a date, which a budget of milliseconds has no use for."""
    return float(text) if text is not None and text.isascii() and text.isdigit() else None


def read_recommendation(answer: Answer, endpoint: str, request_id: str) -> Recommendation:
    """The recommendation in a 200 answer. Raises BrokenAnswer where it is none."""
    try:
        read = _decode_recommendation(answer.body)
    except msgspec.MsgspecError as error:
        raise BrokenAnswer(f"not a recommendation: {error}", endpoint=endpoint) from None
    level = read.level or answer.headers.get(names.HEADER_LEVEL)
    return Recommendation(
        read.model, read.items, level, answer.headers.get(names.HEADER_REQUEST_ID, request_id)
    )


def read_inference(answer: Answer, endpoint: str, request_id: str) -> Inference:
    """The inference in a 200 answer. Raises BrokenAnswer where it is none."""
    from tradewind.client.tensors import decode

    head, arrays = decode(answer.body, answer.headers.get(LENGTH), endpoint)
    found_id = answer.headers.get(names.HEADER_REQUEST_ID, request_id)
    return Inference(
        arrays, head.model_name, head.model_version, answer.headers.get(names.HEADER_LEVEL), found_id
    )
