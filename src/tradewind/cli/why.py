"""The command `why`."""

from __future__ import annotations

import sys

from tradewind.cli.brief import brief
from tradewind.cli.output import emit
from tradewind.errors import SpecError
from tradewind.names import ExitCode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tradewind.cli.flags import FromFlag, NamespaceFlag, OutputFlag
    from tradewind.launch.kubernetes.live import Answer
    from tradewind.launch.why import Cause, Explanation


def why(
    run: str,
    *,
    on: str | None = None,
    from_: FromFlag = None,
    namespace: NamespaceFlag = None,
    output: OutputFlag = "table",
) -> int:
    """Explain why a run or a Job waits, fails or fails to start: causes best first, with evidence and remedy.

    Parameters
    ----------
    run
        A run's id, or with `--on` or `--from` also `job/NAME` for any Job, whoever made it.
    on
        `k8s`, or `k8s:NAME` for the context in contexts/NAME.yaml: where the Job is that is meant.
    from_
        What `kubectl get jobs,pods,nodes,events,resourcequotas,... -o json` printed; `-` is standard input.
        Without it the store is asked where the run went, and then its cluster.
    namespace
        Where the Job is, if several have its name or it is not in the context's namespace.
    output
        `table` for people, `json` for programs.
    """
    if on is not None and from_ is not None:
        raise SpecError("--on and --from: one asks a cluster, the other reads a file; give one of them")
    with brief():
        found = explain_by(run, on, from_, namespace)
    if output == "json":
        emit(found, output)
    else:
        print_explanation(found)
    return ExitCode.OK


def explain_by(ref: str, on: str | None, from_: str | None, namespace: str | None) -> Explanation:
    """Explain by the cluster that is named, by a dump, or where the store says that the run is."""
    if on is not None:
        return explain_on(on, ref, namespace)
    return explain_stored(ref) if from_ is None else explain_dump(from_, ref, namespace)


def explain_dump(path: str, ref: str, namespace: str | None) -> Explanation:
    """Explain a run or a Job of a dump."""
    from tradewind.launch.why import explain, read_dump

    return explain(read_dump(path), ref, namespace)


def explain_on(on: str, ref: str, namespace: str | None) -> Explanation:
    """Explain a Job of a cluster; a run's id means the Job of that run."""
    import msgspec

    from tradewind.launch.kubernetes.context import load_context
    from tradewind.launch.kubernetes.live import explain_job

    if not ref.startswith("job/"):
        return explain_stored(ref)
    context = load_context(on)
    if namespace is not None:
        context = msgspec.structs.replace(context, namespace=namespace)
    return told(explain_job(context, ref.removeprefix("job/")))


def explain_stored(ref: str) -> Explanation:
    """Explain a run that the store knows, where it is."""
    from tradewind.cli.runs import on_cluster
    from tradewind.launch.local import reconcile
    from tradewind.launch.why.local import explain_run
    from tradewind.store import open_store

    if ref.startswith("job/"):
        raise SpecError(
            f"{ref} is a Job of a cluster; say of which with --on k8s, or where its objects are recorded with --from dump.json"
        )
    with open_store() as store:
        run = store.run(ref)
        if on_cluster(run):
            from tradewind.launch.kubernetes.live import explain_there

            return told(explain_there(run, store))
        return explain_run(reconcile(run, store), store.events(run.id))


def told(answer: Answer) -> Explanation:
    """The explanation, after saying what it had to do without."""
    for line in answer.without:
        print(f"tradewind: {line}", file=sys.stderr)
    return answer.found


def print_explanation(found: Explanation) -> None:
    """The first cause in full, the others in a line each."""
    print(f"{found.job}  {found.state}\n")
    first, *others = found.causes
    print_cause(first)
    if others:
        print("\nalso:")
    for cause in others:
        print(f"  {cause.code}: {cause.text}")


def print_cause(cause: Cause) -> None:
    """One cause with its evidence and its remedy."""
    print(f"{cause.code}: {cause.text}\n")
    for fact in cause.evidence:
        print(f"  {fact.object}  {fact.field}: {fact.value}{f'  ({fact.time})' if fact.time else ''}")
    print(f"\nto do: {cause.remedy}")
