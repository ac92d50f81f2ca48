"""A served model on a cluster: which one, how many replicas of it, what each needs, and how it is reached."""

from typing import Annotated, Literal

import msgspec

from tradewind.errors import SpecError
from tradewind.spec.base import Spec
from tradewind.spec.endpoint import SLO
from tradewind.spec.placement import Placement
from tradewind.spec.run import AtLeastOne, Resources

Path = Annotated[str, msgspec.Meta(pattern="^/.+")]
Label = Annotated[str, msgspec.Meta(pattern="^[a-z]([-a-z0-9]{0,51}[a-z0-9])?$")]
"""A DNS label, with room for what controllers put behind it."""


class MountedSecret(Spec, frozen=True, kw_only=True):
    """A Secret whose keys are files in a folder of each replica: API keys, certificates."""

    secret: Annotated[str, msgspec.Meta(min_length=1)]
    path: Path


class EndpointSecret(Spec, frozen=True, kw_only=True):
    """A Secret one of whose keys holds what an endpoint's YAML file holds: classes, tenants, levels, features."""

    secret: Annotated[str, msgspec.Meta(min_length=1)]
    key: Annotated[str, msgspec.Meta(pattern=r"^[-._a-zA-Z0-9]{1,253}$")] = "endpoint.yaml"


class Scaling(Spec, frozen=True, kw_only=True):
    """Between how many replicas to move, and by what."""

    max_replicas: AtLeastOne
    cpu_percent: Annotated[int, msgspec.Meta(ge=1, le=100)] | None = 70
    """Mean CPU of the replicas, of what they asked for; None leaves it out."""
    in_flight: AtLeastOne | None = None
    """Mean requests queued or running in a replica; needs an adapter that serves Prometheus metrics as pod metrics."""
    calm_s: Annotated[int, msgspec.Meta(ge=0, le=3600)] = 300
    """How long less must have been enough before a replica is taken away."""


class Route(Spec, frozen=True, kw_only=True):
    """How requests from outside come in: an HTTPRoute of the Gateway API."""

    gateway: Annotated[str, msgspec.Meta(pattern="^[^/]+(/[^/]+)?$")]
    """`NAME`, or `NAMESPACE/NAME`."""
    hostnames: tuple[str, ...] = ()
    prefix: Path = "/v2"


class DeploymentSpec(Spec, frozen=True, kw_only=True):
    """One endpoint on a cluster, for `tradewind deploy`."""

    model: Annotated[str, msgspec.Meta(min_length=1)]
    """`name@3` or `name@alias` of the store, the folder of a package here, `oci://IMAGE` (an image that holds a
    package), or `volume:/PATH` (a package on one of the context's volumes)."""
    name: Label | None = None
    """Of the endpoint; the model's when None."""
    slo: SLO = SLO()
    workers: AtLeastOne = 1
    """Model processes of each replica."""
    args: tuple[str, ...] = ()
    """Further flags of `tradewind serve`."""
    endpoint: EndpointSecret | None = None
    """What `tradewind serve` has no flags for, or nobody is to read: passwords of feature stores."""
    replicas: AtLeastOne = 2
    scaling: Scaling | None = None
    resources: Resources = Resources(cpus=1.0, memory_gib=2.0)
    """What each replica needs, all its workers together."""
    placement: Placement = Placement()
    secrets: tuple[MountedSecret, ...] = ()
    env_secrets: tuple[str, ...] = ()
    """Secrets whose keys become environment variables."""
    scheme: Literal["http", "https"] = "http"
    """Of the probes; `https` where `args` switch TLS on."""
    route: Route | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        scaling = self.scaling
        if scaling is None:
            return
        if scaling.max_replicas < self.replicas:
            raise SpecError(
                f"DeploymentSpec: scaling.max_replicas: {scaling.max_replicas} is less than replicas {self.replicas}"
            )
        if scaling.cpu_percent is None and scaling.in_flight is None:
            raise SpecError("DeploymentSpec: scaling: name cpu_percent or in_flight to scale by")
        if scaling.cpu_percent is not None and self.resources.cpus is None:
            raise SpecError("DeploymentSpec: scaling.cpu_percent is a share of resources.cpus; say how many")
