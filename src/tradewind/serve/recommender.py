"""The recommendation pipeline as a model of the v2 protocol: padded histories in, items and scores out."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from tradewind.serve.catalogue import Catalogue, join
from tradewind.serve.errors import RequestError
from tradewind.serve.jobs import Prepared, Tensor
from tradewind.serve.protocols.values import Value
from tradewind.serve.served import check_names, check_port, check_rows
from tradewind.serve.wire import Port

NO_SCORE = float(np.finfo(np.float32).min)
"""Score beside an empty item, where fewer than k items are left."""


class RecommendModel:
    """Takes `history` (item ids, "" pads) or `positions` (0 pads), [B, H], oldest first."""

    inputs = (
        Port(name="history", dtype="BYTES", shape=(-1, -1), optional=True),
        Port(name="positions", dtype="INT64", shape=(-1, -1), optional=True),
        Port(name="timestamps", dtype="INT64", shape=(-1, -1), optional=True),
        Port(name="ratings", dtype="FP32", shape=(-1, -1), optional=True),
    )
    outputs = (
        Port(name="items", dtype="BYTES", shape=(-1, -1)),
        Port(name="scores", dtype="FP32", shape=(-1, -1)),
    )
    program = "recommend"

    def __init__(self, name: str, catalogue: Catalogue, max_rows: int) -> None:
        self.name = name
        self.catalogue = catalogue
        self.max_rows = max_rows

    def prepare(self, inputs: Mapping[str, Value], parameters: Mapping[str, object]) -> Prepared:
        """Check the inputs and cut the padding away. Raises RequestError naming what is wrong."""
        check_names(self.inputs, inputs)
        if ("history" in inputs) == ("positions" in inputs):
            raise RequestError(400, "send exactly one of the inputs 'history' and 'positions'")
        first = inputs.get("history") or inputs["positions"]
        for port in self.inputs:
            if port.name in inputs:
                check_port(port, inputs[port.name], {})
                if inputs[port.name].shape != first.shape:
                    raise RequestError(400, f"input {port.name!r}: shape must be {list(first.shape)}")
        if "ratings" in inputs and np.isnan(inputs["ratings"].array()).any():
            raise RequestError(400, "input 'ratings': an element is NaN")
        check_rows(first.shape[0], self.max_rows)
        positions = self._positions(first)
        k = self.k_of(parameters)
        exclude_seen = parameters.get("exclude_seen", True)
        if not isinstance(exclude_seen, bool):
            raise RequestError(400, "parameter exclude_seen must be true or false")
        wanted = self._filter(parameters.get("filter"))
        rows = []
        for row in range(first.shape[0]):
            kept = positions[row] > 0
            times, ratings = (
                inputs[name].array()[row][kept].tolist() if name in inputs else None
                for name in ("timestamps", "ratings")
            )
            history = positions[row][kept].tolist()
            rows.append(
                self.catalogue.user(history, times, ratings, k=k, exclude_seen=exclude_seen, wanted=wanted)
            )
        return join(rows)

    def k_of(self, parameters: Mapping[str, object]) -> int:
        """Return how many items are asked for. Raises RequestError (400) for more than there can be."""
        return self.catalogue.check_k(parameters.get("k", self.catalogue.default_k))

    def finish(self, tensors: Mapping[str, Tensor], parameters: Mapping[str, object]) -> dict[str, Value]:
        """Return external ids, and scores that JSON can hold; k of each, whatever others in the batch asked for."""
        k = self.k_of(parameters)
        items, scores = tensors["items"], tensors["scores"]
        positions = np.frombuffer(items.data, np.int64).reshape(items.shape)[:, :k]
        names = [self.catalogue.items[p].encode() for p in positions.ravel().tolist()]
        finite = np.frombuffer(scores.data, np.float32).reshape(scores.shape)[:, :k].copy()
        finite[np.isneginf(finite)] = NO_SCORE
        return {
            "items": Value("BYTES", positions.shape, names),
            "scores": Value("FP32", finite.shape, finite.tobytes()),
        }

    def _filter(self, stated: object) -> bytes:
        if stated is None:
            return b""
        if not isinstance(stated, str):
            raise RequestError(400, "parameter filter must be a string that holds a filter's JSON")
        return self.catalogue.filters.check(stated.encode("utf-8", "surrogatepass"))

    def _positions(self, value: Value) -> npt.NDArray[np.int64]:
        if isinstance(value.data, list):
            flat = [self.catalogue.position(i.decode("utf-8", "replace")) if i else 0 for i in value.data]
            return np.array(flat, dtype=np.int64).reshape(value.shape)
        positions = value.array()
        for position in positions.ravel().tolist():
            if position:
                self.catalogue.check_position(position)
        return positions
