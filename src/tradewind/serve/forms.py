"""Inferences that were read before: a client sends the same JSON again, in front of other tensors of the same shapes."""

from collections.abc import Hashable
from typing import NamedTuple

from tradewind.serve.jobs import Prepared, Tensor
from tradewind.serve.protocols import v2
from tradewind.serve.served import ServedModel

MAX_FORMS, MAX_BYTES = 256, 2048
"""How many are remembered, and how long their JSON may be."""
_LOOKED_AT = ("BOOL", "BYTES")
"""Tensors of which more has to be checked than how many bytes they are."""


class Form(NamedTuple):
    """What a request's JSON says, checked against the model, and where in its body each tensor is."""

    request: v2.InferRequest
    num_bytes: int
    """Of the whole body."""
    tensors: tuple[tuple[str, str, tuple[int, ...], int, int], ...]
    """Name, datatype, shape, first byte and last."""
    rows: int
    key: Hashable
    """What it shares a batch by; None where it shares none."""


class Forms:
    """Reads the inferences of one version of the models."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, bytes], Form] = {}

    def read(
        self, model: ServedModel, data: bytes, start: int, header_length: str | None
    ) -> tuple[v2.InferRequest, Prepared]:
        """Return what is asked, and what is to be queued; the body is what `data` holds from `start` on.

        Raises RequestError (400) naming what is wrong and where.
        """
        num_bytes = len(data) - start
        size = v2.header_size(header_length, num_bytes)
        if header_length is None or size > MAX_BYTES:
            inference = v2.parse(data[start:], header_length)
            return inference.request, prepare(model, inference)
        known_by = model.name, data[start : start + size]
        form = self._known.get(known_by)
        if form is not None and num_bytes == form.num_bytes:
            return form.request, _filled(form, memoryview(data)[start:])
        inference = v2.parse(data[start:], header_length)
        prepared = prepare(model, inference)
        form = _form(inference, prepared, size)
        if form is not None:
            if len(self._known) >= MAX_FORMS:
                del self._known[next(iter(self._known))]
            self._known[known_by] = form
        return inference.request, prepared


def prepare(model: ServedModel, inference: v2.Inference) -> Prepared:
    """Check an inference against its model, and return what is to be queued. Raises RequestError (400)."""
    v2.check_outputs(model, inference.request)
    return model.prepare(inference.inputs, inference.request.parameters)


def _filled(form: Form, body: memoryview) -> Prepared:
    tensors = {name: Tensor(dtype, shape, body[start:end]) for name, dtype, shape, start, end in form.tensors}
    return Prepared(tensors, form.rows, object() if form.key is None else form.key)


def _form(inference: v2.Inference, prepared: Prepared, start: int) -> Form | None:
    """Return what such requests have in common, where their tensors are queued as they came; None where they are not."""
    spans: dict[str, tuple[int, int]] = {}
    for name, value in inference.inputs.items():
        if not isinstance(value.data, memoryview) or value.dtype in _LOOKED_AT:
            return None
        spans[name] = start, (start := start + value.data.nbytes)
    tensors = prepared.tensors
    if tensors.keys() != spans.keys() or any(
        t.data is not inference.inputs[n].data for n, t in tensors.items()
    ):
        return None
    placed = tuple((name, t.dtype, t.shape, *spans[name]) for name, t in tensors.items())
    key = prepared.key if isinstance(prepared.key, tuple) else None
    return Form(inference.request, start, placed, prepared.rows, key)
