"""`tradewind serve`: a model inside a latency budget."""

import sys
from typing import TYPE_CHECKING, Literal

from tradewind.cli.flags import OutputFlag
from tradewind.cli.output import emit

if TYPE_CHECKING:
    from tradewind.serve.edge import Edge
    from tradewind.serve.replica import Replica
    from tradewind.spec import TLS, EndpointSpec


def serve(
    model: str,
    /,
    *,
    slo: str | None = None,
    host: str | None = None,
    port: int | None = None,
    grpc_port: int | None = None,
    tls_cert: str | None = None,
    tls_key: str | None = None,
    tls_client_ca: str | None = None,
    keys: str | None = None,
    workers: int | None = None,
    device: Literal["cpu", "cuda"] | None = None,
    max_batch: int | None = None,
    max_request_mib: float | None = None,
    candidates: int | None = None,
    compile: bool = False,
    settings: str | None = None,
    access_log: Literal["auto", "all", "off"] = "auto",
    dry_run: bool = False,
    output: OutputFlag = "table",
) -> None:
    """Serve a model inside a latency budget, until SIGTERM or Ctrl-C.

    Parameters
    ----------
    model
        A version (`name@3`), an alias (`name@production`), the folder of a package, or a YAML file that names one
        of these and has the endpoint's classes, tenants and levels. Flags count before the file.
    slo
        Latency target of a request that states no deadline: 50ms (without this flag), 0.2s.
    host
        Address to listen on; 127.0.0.1.
    port
        Port to listen on; 8080. 0 takes a free one.
    grpc_port
        Port for gRPC; 0 takes a free one; none when left out.
    tls_cert
        PEM file of the certificate and its chain; both ports then speak TLS only. Read again when it changes.
    tls_key
        PEM file of the certificate's key, without a passphrase.
    tls_client_ca
        PEM file of who may sign clients' certificates; clients must then have one.
    keys
        YAML file of tenants, their API keys and quotas (`tradewind keys`). Read again when it changes.
    workers
        Processes that run the model; 1.
    device
        cpu, or cuda: the workers share the GPUs that are visible; cpu.
    max_batch
        Most rows in one batch; 64.
    max_request_mib
        Largest request body, in MiB; 8.
    candidates
        Items that a recommender retrieves and ranks; 200.
    compile
        Compile the model's programs for this machine, beside serving, and change over once that is done and faster.
        What is compiled already (`tradewind compile`) is used without this flag.
    settings
        YAML file with the endpoint's classes, tenants, levels and features for a MODEL that is not such a file itself.
    access_log
        auto: every request at low rates, only failures at high ones; all; off.
    dry_run
        Show what would be served, and stop.
    output
        table or json.
    """
    import msgspec

    from tradewind.serve.server import locate
    from tradewind.serve.server import serve as serve_endpoint
    from tradewind.spec import parse_slo
    from tradewind.store import open_store

    flags = {
        "slo": None if slo is None else parse_slo(slo),
        "host": host,
        "port": port,
        "grpc_port": grpc_port,
        "tls": _tls(tls_cert, tls_key, tls_client_ca),
        "keys": keys,
        "workers": workers,
        "device": device,
        "max_batch": max_batch,
        "max_request_mib": max_request_mib,
        "candidates": candidates,
        "compile": compile or None,
    }
    spec = _in_files(model, settings)
    spec = msgspec.structs.replace(
        spec, **{name: value for name, value in flags.items() if value is not None}
    )
    with open_store() as store:
        if dry_run:
            found = locate(spec.model, lambda: store)
            emit({"spec": _shown(spec), "path": str(found.path), "version": found.version}, output)
            return

        def announce(edge: "Edge", replica: "Replica") -> None:
            grpc = {"grpc": edge.grpc_address} if edge.grpc_address else {}
            emit({"serving": replica.label, "url": edge.url} | grpc, output)
            sys.stdout.flush()

        serve_endpoint(spec, store, access_log=access_log, on_ready=announce)


def _in_files(model: str, settings: str | None) -> "EndpointSpec":
    """What is asked for without the other flags."""
    from tradewind.errors import SpecError
    from tradewind.spec import EndpointSpec, load_yaml

    in_file = model.endswith((".yaml", ".yml"))
    if in_file and settings is not None:
        raise SpecError(f"{model} is the endpoint's file already; write what {settings} says into it")
    if in_file:
        return load_yaml(model, EndpointSpec)
    return (
        EndpointSpec(model=model) if settings is None else load_yaml(settings, EndpointSpec, {"model": model})
    )


def _shown(spec: "EndpointSpec") -> dict[str, object]:
    """The spec, without what is secret in it."""
    from tradewind.spec import to_dict

    features = {} if spec.features is None else {"features": spec.features.shown()}
    return to_dict(spec) | features


def _tls(cert: str | None, key: str | None, client_ca: str | None) -> "TLS | None":
    from tradewind.errors import SpecError
    from tradewind.spec import TLS

    if cert is None and key is None and client_ca is None:
        return None
    if cert is None or key is None:
        raise SpecError("TLS needs both --tls-cert and --tls-key")
    return TLS(cert=cert, key=key, client_ca=client_ca)
