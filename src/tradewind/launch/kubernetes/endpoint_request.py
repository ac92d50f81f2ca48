"""An endpoint, worked out for one cluster: everything that its objects are made from, and nothing else."""

from typing import Any

import msgspec

from tradewind import names
from tradewind.errors import SpecError
from tradewind.launch.kubernetes.context import Context
from tradewind.launch.kubernetes.model import Model
from tradewind.launch.kubernetes.request import Capabilities
from tradewind.spec import DeploymentSpec, Placement
from tradewind.spec.placement import over


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint, worked out for one cluster."""

    name: str
    spec: DeploymentSpec
    model: Model
    context: Context
    placement: Placement
    image: str
    capabilities: Capabilities = Capabilities()


def make_endpoint(
    spec: DeploymentSpec, model: Model, context: Context, capabilities: Capabilities
) -> Endpoint:
    """Work out an endpoint; raises SpecError without an image, and for a route where the cluster has none."""
    placement = over(spec.placement, context.placement)
    if placement.image is None:
        raise SpecError(
            "placement.image: no image is named; give --image, or `placement: {image: ...}` in the context. "
            "It needs tradewind[serve]; deploy/kubernetes/Dockerfile.serve makes one"
        )
    if spec.route and not capabilities.gateway:
        raise SpecError(
            "route: the cluster does not serve gateway.networking.k8s.io/v1; install the Gateway API, "
            "or leave `route` out and reach the Service"
        )
    return Endpoint(
        name=spec.name or endpoint_name(model.name),
        spec=spec,
        model=model,
        context=context,
        placement=placement,
        image=placement.image,
        capabilities=capabilities,
    )


def endpoint_name(model: str) -> str:
    """A DNS label made of a model's name."""
    slug = "".join(c if c.isascii() and c.isalnum() else "-" for c in model.lower())[:52].strip("-")
    return slug if slug and slug[0].isalpha() else f"model-{slug}".strip("-")


def labels(endpoint: Endpoint) -> dict[str, str]:
    """What every object of the endpoint is found by."""
    return {
        names.LABEL_NAME: endpoint.name,
        names.LABEL_MANAGED_BY: names.FIELD_MANAGER,
        names.LABEL_ENDPOINT: endpoint.name,
    }


def selector(endpoint: Endpoint) -> dict[str, Any]:
    """The endpoint's pods."""
    return {"matchLabels": {names.LABEL_ENDPOINT: endpoint.name}}


def config_map_name(endpoint: Endpoint) -> str:
    """Another package is another ConfigMap, so that replicas of the old one can still start."""
    digest = endpoint.model.code.digest.removeprefix("sha256:")[:10] if endpoint.model.code else ""
    return f"{endpoint.name}-{digest}"
