"""`tradewind serve`: a model inside a latency budget."""

import sys
from typing import Annotated, Literal

from cyclopts import Parameter

from tradewind.cli.output import Output, emit


def serve(
    model: str,
    /,
    *,
    slo: str = "50ms",
    host: str = "127.0.0.1",
    port: int = 8080,
    workers: int = 1,
    max_batch: int = 64,
    max_request_mib: float = 8.0,
    candidates: int = 200,
    access_log: Literal["auto", "all", "off"] = "auto",
    dry_run: bool = False,
    output: Annotated[Output, Parameter(name=["--output", "-o"])] = "table",
) -> None:
    """Serve a model inside a latency budget, until SIGTERM or Ctrl-C.

    Parameters
    ----------
    model
        A version (`name@3`), an alias (`name@production`), or the folder of a package.
    slo
        Latency target of a request that states no deadline: 50ms, 0.2s.
    host
        Address to listen on.
    port
        Port to listen on; 0 takes a free one.
    workers
        Processes that run the model.
    max_batch
        Most rows in one batch.
    max_request_mib
        Largest request body, in MiB.
    candidates
        Items that a recommender retrieves and ranks.
    access_log
        auto: every request at low rates, only failures at high ones; all; off.
    dry_run
        Show what would be served, and stop.
    output
        table or json.
    """
    from tradewind.serve.server import locate
    from tradewind.serve.server import serve as serve_endpoint
    from tradewind.spec import EndpointSpec, parse_slo
    from tradewind.store import open_store

    spec = EndpointSpec(
        model=model,
        slo=parse_slo(slo),
        host=host,
        port=port,
        workers=workers,
        max_batch=max_batch,
        max_request_mib=max_request_mib,
        candidates=candidates,
    )
    with open_store() as store:
        if dry_run:
            found = locate(model, lambda: store)
            emit({"spec": spec, "path": str(found.path), "version": found.version}, output)
            return

        def announce(url: str, label: str) -> None:
            emit({"serving": label, "url": url}, output)
            sys.stdout.flush()

        serve_endpoint(spec, store, access_log=access_log, on_ready=lambda url, r: announce(url, r.label))
