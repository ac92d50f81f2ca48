"""What a served model promises and may use."""

from typing import Annotated, Literal

import msgspec

from tradewind.errors import SpecError
from tradewind.spec.base import Spec
from tradewind.spec.features import FeatureSpec
from tradewind.spec.run import AtLeastOne, Positive

Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]


class SLO(Spec, frozen=True, kw_only=True):
    """`percentile` of requests answer within `latency_ms`, in `attainment` of the windows looked at."""

    latency_ms: Positive = 50.0
    percentile: Annotated[float, msgspec.Meta(gt=0, le=100)] = 99.0
    attainment: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.99


class TLS(Spec, frozen=True, kw_only=True):
    """PEM files: certificate with its chain, its key, and, to ask clients for theirs, who may have signed it."""

    cert: str
    key: str
    client_ca: str | None = None


class PriorityClass(Spec, frozen=True, kw_only=True):
    """One class of requests; `share` of the model's time is its own even when classes above ask for more."""

    name: Name
    share: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0


class QualityLevel(Spec, frozen=True, kw_only=True):
    """One way to answer. A recommender's says how much is ranked; a generic package's names a program.

    `prerank` is how many of the candidates the package's program `prerank` leaves to `rank`: the best, as it scores
    them; without `rank` its order is the answer. `popular` is a list that the front process gives by itself, at no cost
    to the model's workers.
    """

    name: Name | None = None
    candidates: AtLeastOne | None = None
    prerank: AtLeastOne | None = None
    rank: bool = True
    popular: bool = False
    program: str | None = None


CLASSES = (
    PriorityClass(name="high", share=0.5),
    PriorityClass(name="normal", share=0.3),
    PriorityClass(name="low", share=0.1),
)


class EndpointSpec(Spec, frozen=True, kw_only=True):
    """One endpoint: the model to serve (`name@3`, `name@alias`), its SLO and its limits.

    `classes` go from the most important to the least; `tenants` weighs those that are not to count as one each;
    `levels` go from the best answer to the cheapest, and are chosen for the model where there are none. `features`
    says where a recommender's users are fetched from; without it, they come with each request.
    """

    model: Annotated[str, msgspec.Meta(min_length=1)]
    name: str | None = None
    slo: SLO = SLO()
    host: str = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 8080
    grpc_port: Annotated[int, msgspec.Meta(ge=0, le=65535)] | None = None
    tls: TLS | None = None
    keys: str | None = None
    """File of tenants and the digests of their API keys; without one, everybody may ask."""
    workers: AtLeastOne = 1
    device: Literal["cpu", "cuda"] = "cpu"
    """What the workers run programs on; with "cuda" each has one of the GPUs that are visible, in turn."""
    max_batch: AtLeastOne = 64
    max_request_mib: Positive = 8.0
    candidates: AtLeastOne = 200
    index: str = "exact"
    compile: bool = False
    """Compile, beside serving, what is not compiled for this machine yet; what is, is used in any case."""
    classes: tuple[PriorityClass, ...] = CLASSES
    default_class: str = "normal"
    tenants: dict[str, Positive] = msgspec.field(default_factory=dict)
    levels: tuple[QualityLevel, ...] = ()
    features: FeatureSpec | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        names = [c.name for c in self.classes]
        if len(set(names)) < len(names):
            raise SpecError(f"EndpointSpec: classes: {', '.join(names)}: two have the same name")
        if self.default_class not in names:
            known = ", ".join(names) or "none"
            raise SpecError(f"EndpointSpec: default_class: {self.default_class!r} is not one of: {known}")
        if sum(c.share for c in self.classes) > 1 + 1e-9:
            raise SpecError("EndpointSpec: classes: their shares add up to more than 1; lower some")
        if self.compile and self.device != "cpu":
            raise SpecError(
                "EndpointSpec: compile: programs are compiled for the CPU; leave it out with device: cuda"
            )
