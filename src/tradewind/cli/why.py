"""The command `why`."""

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from tradewind.cli.output import Output, emit
from tradewind.names import ExitCode

if TYPE_CHECKING:
    from tradewind.launch.why import Cause, Explanation

OutputFlag = Annotated[Output, Parameter(name=["--output", "-o"])]


def why(
    run: str,
    *,
    from_: Annotated[str, Parameter(name=["--from"])],
    namespace: Annotated[str | None, Parameter(name=["--namespace", "-n"])] = None,
    output: OutputFlag = "table",
) -> int:
    """Explain why a run or a Job waits, fails or fails to start: causes best first, with evidence and remedy.

    Parameters
    ----------
    run
        A run's id, or `job/NAME` for any Job, whoever made it.
    from_
        What `kubectl get jobs,pods,nodes,events,resourcequotas,... -o json` printed; `-` is standard input.
    namespace
        Where the Job is, if several have its name.
    output
        `table` for people, `json` for programs.
    """
    from tradewind.launch.why import explain, read_dump

    found = explain(read_dump(from_), run, namespace)
    if output == "json":
        emit(found, output)
    else:
        print_explanation(found)
    return ExitCode.OK


def print_explanation(found: "Explanation") -> None:
    """The first cause in full, the others in a line each."""
    print(f"{found.job}  {found.state}\n")
    first, *others = found.causes
    print_cause(first)
    if others:
        print("\nalso:")
    for cause in others:
        print(f"  {cause.code}: {cause.text}")


def print_cause(cause: "Cause") -> None:
    """One cause with its evidence and its remedy."""
    print(f"{cause.code}: {cause.text}\n")
    for fact in cause.evidence:
        print(f"  {fact.object}  {fact.field}: {fact.value}{f'  ({fact.time})' if fact.time else ''}")
    print(f"\nto do: {cause.remedy}")
