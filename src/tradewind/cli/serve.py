"""`tradewind serve`: a model inside a latency budget."""

import sys
from typing import Annotated, Literal

from cyclopts import Parameter

from tradewind.cli.output import Output, emit


def serve(
    model: str,
    /,
    *,
    slo: str | None = None,
    host: str | None = None,
    port: int | None = None,
    workers: int | None = None,
    max_batch: int | None = None,
    max_request_mib: float | None = None,
    candidates: int | None = None,
    access_log: Literal["auto", "all", "off"] = "auto",
    dry_run: bool = False,
    output: Annotated[Output, Parameter(name=["--output", "-o"])] = "table",
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
    workers
        Processes that run the model; 1.
    max_batch
        Most rows in one batch; 64.
    max_request_mib
        Largest request body, in MiB; 8.
    candidates
        Items that a recommender retrieves and ranks; 200.
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
    from tradewind.spec import EndpointSpec, load_yaml, parse_slo
    from tradewind.store import open_store

    flags = {
        "slo": None if slo is None else parse_slo(slo),
        "host": host,
        "port": port,
        "workers": workers,
        "max_batch": max_batch,
        "max_request_mib": max_request_mib,
        "candidates": candidates,
    }
    in_file = model.endswith((".yaml", ".yml"))
    spec = load_yaml(model, EndpointSpec) if in_file else EndpointSpec(model=model)
    spec = msgspec.structs.replace(
        spec, **{name: value for name, value in flags.items() if value is not None}
    )
    with open_store() as store:
        if dry_run:
            found = locate(spec.model, lambda: store)
            emit({"spec": spec, "path": str(found.path), "version": found.version}, output)
            return

        def announce(url: str, label: str) -> None:
            emit({"serving": label, "url": url}, output)
            sys.stdout.flush()

        serve_endpoint(spec, store, access_log=access_log, on_ready=lambda url, r: announce(url, r.label))
