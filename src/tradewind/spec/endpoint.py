"""What a served model promises and may use."""

from typing import Annotated

import msgspec

from tradewind.spec.base import Spec
from tradewind.spec.run import AtLeastOne, Positive


class SLO(Spec, frozen=True, kw_only=True):
    """`percentile` of requests answer within `latency_ms`, in `attainment` of the windows looked at."""

    latency_ms: Positive = 50.0
    percentile: Annotated[float, msgspec.Meta(gt=0, le=100)] = 99.0
    attainment: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.99


class EndpointSpec(Spec, frozen=True, kw_only=True):
    """One endpoint: the model to serve (`name@3`, `name@alias`), its SLO and its limits."""

    model: Annotated[str, msgspec.Meta(min_length=1)]
    name: str | None = None
    slo: SLO = SLO()
    host: str = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 8080
    workers: AtLeastOne = 1
    max_batch: AtLeastOne = 64
    max_request_mib: Positive = 8.0
    candidates: AtLeastOne = 200
