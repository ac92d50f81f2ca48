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
    from_: Annotated[str | None, Parameter(name=["--from"], allow_leading_hyphen=True)] = None,
    namespace: Annotated[str | None, Parameter(name=["--namespace", "-n"])] = None,
    output: OutputFlag = "table",
) -> int:
    """Explain why a run or a Job waits, fails or fails to start: causes best first, with evidence and remedy.

    Parameters
    ----------
    run
        A run's id, or with `--from` also `job/NAME` for any Job, whoever made it.
    from_
        What `kubectl get jobs,pods,nodes,events,resourcequotas,... -o json` printed; `-` is standard input.
        Without it the run is one of this machine, and the store is asked.
    namespace
        Where the Job is, if several have its name.
    output
        `table` for people, `json` for programs.
    """
    found = explain_local(run) if from_ is None else explain_dump(from_, run, namespace)
    if output == "json":
        emit(found, output)
    else:
        print_explanation(found)
    return ExitCode.OK


def explain_dump(path: str, ref: str, namespace: str | None) -> "Explanation":
    """Explain a run or a Job of a dump."""
    from tradewind.launch.why import explain, read_dump

    return explain(read_dump(path), ref, namespace)


def explain_local(ref: str) -> "Explanation":
    """Explain a run of this machine."""
    from tradewind.errors import SpecError
    from tradewind.launch.local import reconcile
    from tradewind.launch.why.local import explain_run
    from tradewind.store import open_store

    if ref.startswith("job/"):
        raise SpecError(
            f"{ref} is a Job of a cluster; say where its objects are recorded with --from dump.json"
        )
    with open_store() as store:
        run = reconcile(store.run(ref), store)
        return explain_run(run, store.events(run.id))


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
