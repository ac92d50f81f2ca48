"""A Ray cluster by name: where its job API is, and what holds for every run there."""

import os
import re
from typing import Annotated, Literal

import msgspec

from tradewind.errors import SpecError
from tradewind.spec import Spec, load_yaml

KIND = "ray"
DEFAULT = "http://127.0.0.1:8265"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_ADDRESS = re.compile(r"(https?://)?[A-Za-z0-9.\[\]:-]+:\d+(/\S*)?")


class RayContext(Spec, frozen=True, kw_only=True):
    """One Ray cluster; `contexts/NAME.yaml` in Tradewind's home, for `--on ray:NAME`."""

    address: str | None = None
    """Of the job API, `http://HOST:8265`; `$RAY_API_SERVER_ADDRESS`, else this machine's, when None."""
    strategy: Literal["STRICT_SPREAD", "SPREAD", "PACK", "STRICT_PACK"] = "STRICT_SPREAD"
    """How the hosts of a run lie on Ray's nodes: each on a node of its own, or close together."""
    start_deadline_s: Annotated[int, msgspec.Meta(ge=1)] = 900
    """How long a run waits for all of its hosts before it gives up and asks to be requeued."""
    run_root: str | None = None
    """Folder that all nodes share, for checkpoints; without it they stay on the node, which may be lost."""
    scratch: str = "/tmp/tradewind-ray"
    """Folder of each node for code and logs of runs."""
    env: dict[str, str] = msgspec.field(default_factory=dict)
    """Environment of agents and workers, such as `TRADEWIND_STORE`."""
    python: str = "python"
    """Python of Ray's nodes, which has torch, ray and tradewind."""
    grace_s: Annotated[int, msgspec.Meta(ge=1)] = 60
    """How long workers may take to commit when the run is stopped."""


def load_ray_context(on: str) -> RayContext:
    """The cluster that `--on ray`, `--on ray:ADDRESS` or `--on ray:NAME` means.

    Without a name it is `contexts/ray.yaml` where that exists. Raises SpecError for what is none of these.
    """
    from tradewind.store import home

    kind, _, rest = on.partition(":")
    if kind != KIND or (rest and not _NAME.fullmatch(rest) and not _ADDRESS.fullmatch(rest)):
        raise SpecError(
            f"--on {on}: there is no such place; write ray, ray:http://HOST:8265, or ray:NAME for contexts/NAME.yaml"
        )
    if rest and not _NAME.fullmatch(rest):
        return RayContext(address=rest)
    path = home() / "contexts" / f"{rest or KIND}.yaml"
    if path.exists():
        return load_yaml(path, RayContext)
    if rest:
        raise SpecError(f"--on {on}: there is no {path}; write it, or give the address of Ray's job API")
    return RayContext()


def address_of(context: RayContext) -> str:
    """The URL of the job API."""
    found = context.address or os.environ.get("RAY_API_SERVER_ADDRESS") or DEFAULT
    return (found if "://" in found else f"http://{found}").rstrip("/")
