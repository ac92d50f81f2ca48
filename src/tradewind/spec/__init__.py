"""What was asked for: frozen structs, built in Python, decoded from YAML, or filled from flags."""

from tradewind.spec.base import Spec, from_stored, to_dict
from tradewind.spec.decode import decode, load_yaml
from tradewind.spec.deployment import DeploymentSpec, EndpointSecret, MountedSecret, Route, Scaling
from tradewind.spec.endpoint import SLO, TLS, EndpointSpec, PriorityClass, QualityLevel
from tradewind.spec.features import FeatureSpec
from tradewind.spec.placement import Placement, Toleration
from tradewind.spec.run import Resources, RunSpec
from tradewind.spec.units import parse_duration_s, parse_slo

__all__ = [
    "SLO",
    "TLS",
    "DeploymentSpec",
    "EndpointSecret",
    "EndpointSpec",
    "FeatureSpec",
    "MountedSecret",
    "Placement",
    "PriorityClass",
    "QualityLevel",
    "Resources",
    "Route",
    "RunSpec",
    "Scaling",
    "Spec",
    "Toleration",
    "decode",
    "from_stored",
    "load_yaml",
    "parse_duration_s",
    "parse_slo",
    "to_dict",
]
