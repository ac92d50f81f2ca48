"""`tradewind deploy`, `endpoints`, `undeploy`: served models on a cluster."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from tradewind.cli.flags import OutputFlag
from tradewind.cli.output import emit
from tradewind.names import ExitCode

if TYPE_CHECKING:
    from tradewind.spec import DeploymentSpec

COLUMNS = ("name", "on", "state", "ready", "wanted", "model", "reason")


def deploy(
    model: str,
    *args: Annotated[str, Parameter(allow_leading_hyphen=True)],
    on: str = "k8s",
    name: str | None = None,
    replicas: int | None = None,
    max_replicas: int | None = None,
    slo: str | None = None,
    workers: int | None = None,
    cpus: float | None = None,
    memory_gib: float | None = None,
    gpus: int | None = None,
    image: str | None = None,
    dry_run: bool = False,
    detach: bool = False,
    output: OutputFlag = "table",
) -> int:
    """Serve a model on a cluster, or change what is served; returns when all replicas are ready.

    Parameters
    ----------
    model
        A version (`name@3`), an alias (`name@production`), a package's folder, `oci://IMAGE`, `volume:/PATH`, or a YAML
        file that holds a DeploymentSpec.
    args
        Further flags of `tradewind serve`, after `--`.
    on
        `k8s`, or `k8s:NAME` for the context in contexts/NAME.yaml.
    max_replicas
        Scale between `replicas` and this by CPU; a YAML file can say more.
    slo
        Latency target of a request that states no deadline: 50ms, p99<0.2s.
    workers
        Model processes of each replica.
    cpus, memory_gib, gpus
        What each replica needs.
    dry_run
        Print the manifests as YAML, the package included, without asking a cluster.
    detach
        Return at once.
    """
    from tradewind.launch.kubernetes import deploy as launch
    from tradewind.launch.kubernetes.preview import to_yaml
    from tradewind.store import open_store

    needs = {"cpus": cpus, "memory_gib": memory_gib, "gpus": gpus}
    spec = deployment_spec(
        model, args, needs, max_replicas, image, slo, name=name, replicas=replicas, workers=workers
    )
    with open_store() as store:
        if dry_run:
            print(to_yaml(launch.rendered_endpoint(spec, on, store)), end="")
            return ExitCode.OK
        made = launch.deploy(spec, on, store)
    if detach:
        print(made)
        return ExitCode.OK
    try:
        seen = launch.wait_until_serving(made, on, spec.replicas)
    except KeyboardInterrupt:
        print(f"endpoint {made} goes on; `tradewind endpoints --on {on}` shows it", file=sys.stderr)
        raise
    emit([seen], output, COLUMNS)
    return ExitCode.OK if seen.state == "serving" else ExitCode.FAILED


def deployment_spec(
    model: str,
    args: tuple[str, ...],
    needs: dict[str, Any],
    max_replicas: int | None,
    image: str | None,
    slo: str | None,
    **flags: Any,
) -> "DeploymentSpec":
    """What the command line asks for: flags over the YAML file, if one was given."""
    import msgspec

    from tradewind.spec import DeploymentSpec, Scaling, load_yaml, parse_slo

    is_yaml = model.endswith((".yaml", ".yml"))
    base = load_yaml(Path(model), DeploymentSpec) if is_yaml else DeploymentSpec(model=model)
    given = {key: value for key, value in flags.items() if value is not None}
    resources = {key: value for key, value in needs.items() if value is not None}
    given["resources"] = msgspec.structs.replace(base.resources, **resources)
    if args:
        given["args"] = args
    if image is not None:
        given["placement"] = msgspec.structs.replace(base.placement, image=image)
    if slo is not None:
        given["slo"] = parse_slo(slo)
    if max_replicas is not None:
        scaling = base.scaling or Scaling(max_replicas=max_replicas)
        given["scaling"] = msgspec.structs.replace(scaling, max_replicas=max_replicas)
    return msgspec.structs.replace(base, **given)


def endpoints(*, on: str = "k8s", output: OutputFlag = "table") -> int:
    """List the endpoints of a cluster's namespace.

    Parameters
    ----------
    on
        `k8s`, or `k8s:NAME` for the context in contexts/NAME.yaml.
    """
    from tradewind.launch.kubernetes.deploy import endpoints as found

    emit(found(on), output, COLUMNS)
    return ExitCode.OK


def undeploy(name: str, *, on: str = "k8s") -> int:
    """Take an endpoint away; its replicas answer what is in flight first.

    Parameters
    ----------
    name
        The endpoint's, as `tradewind endpoints` shows it.
    on
        `k8s`, or `k8s:NAME` for the context in contexts/NAME.yaml.
    """
    from tradewind.launch.kubernetes import deploy as launch

    launch.undeploy(name, on)
    print(f"endpoint {name} drains and goes", file=sys.stderr)
    return ExitCode.OK
