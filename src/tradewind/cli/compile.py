"""`tradewind compile`: a model's programs as native code for this machine."""

import sys
from typing import TYPE_CHECKING, Any

from tradewind.cli.flags import OutputFlag
from tradewind.cli.output import emit
from tradewind.names import ExitCode

if TYPE_CHECKING:
    from tradewind.models.building import Built
    from tradewind.serve.wire import Execution

COLUMNS = ("program", "rows", "eager_ms", "compiled_ms", "difference", "verdict")


def compile(model: str, /, *, output: OutputFlag = "table") -> int:
    """Compile a model's programs for this machine, and try them; `tradewind serve` then uses those that are faster.

    Takes some ten seconds a program, once for each graph: versions that differ in their weights share what was compiled.
    Each is compared with the program as it was packaged, on samples of every batch size. One that gives something else,
    or is not faster, is not used; the verdict says so. Needs a C++ compiler (g++ or clang; CXX names another). What is
    compiled stays on this machine, in $TRADEWIND_HOME/compiled, which is yours alone; remove it to run without. What the
    index of a recommender learns of its items meanwhile is kept as well, in $TRADEWIND_HOME/indexes.

    Parameters
    ----------
    model
        A version (`name@3`), an alias (`name@production`), the folder of a package, or the YAML file of an endpoint,
        which says how large batches are and how many candidates there are to rank.
    output
        `table` for people, `json` for programs.
    """
    from tradewind.serve.server import locate
    from tradewind.spec import EndpointSpec, load_yaml
    from tradewind.store import open_store

    in_file = model.endswith((".yaml", ".yml"))
    spec = load_yaml(model, EndpointSpec) if in_file else EndpointSpec(model=model)
    with open_store() as store:
        located = locate(spec.model, lambda: store)
    from tradewind.serve.ahead import build, try_out  # loads torch

    failed: dict[str, str] = {}
    for built in build(located):
        print(_said(built), file=sys.stderr, flush=True)
        failed |= {built.program: built.error} if built.error else {}
    found = try_out(located, spec)
    rows = [_row(program, how, failed.get(program, "")) for program, how in found.items()]
    if output == "json":
        emit(rows, output)
    else:
        emit([line for row in rows for line in _lines(row)], output, COLUMNS)
    return ExitCode.FAILED if failed.keys() >= found.keys() or "" in failed else ExitCode.OK


def _said(built: "Built") -> str:
    if built.error:
        return f"{built.program or 'compile'}: {built.error}"
    return f"{built.program}: " + (f"compiled in {built.seconds:.1f} s" if built.built else "compiled before")


def _row(program: str, how: "Execution", error: str) -> dict[str, Any]:
    return {
        "program": program,
        "compiled": how.compiled,
        "why": error or how.why,
        "difference": how.difference,
        "timings": [
            {"rows": t.rows, "eager_ms": t.eager_s * 1e3, "compiled_ms": t.compiled_s * 1e3}
            for t in how.timings
        ],
    }


def _lines(row: dict[str, Any]) -> list[dict[str, Any]]:
    """A row for each batch size; the first says what came of the program."""
    verdict = "compiled" if row["compiled"] else f"eager: {row['why']}"
    first = {"program": row["program"], "difference": row["difference"], "verdict": verdict}
    timings = row["timings"] or [{}]
    return [timing | (first if i == 0 else {}) for i, timing in enumerate(timings)]
