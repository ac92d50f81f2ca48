"""Why a run stands where it does by what the store holds: its failure and verdict events, and its attempts."""

import datetime
from collections.abc import Iterable, Sequence

from tradewind.launch.why.cause import Cause, Code, Evidence, Weight, fact
from tradewind.launch.why.explain import Explanation, rank
from tradewind.store import Attempt, Event, Run

_BY_CLASS = {
    "killed": Code.KILLED,
    "out_of_memory": Code.OUT_OF_MEMORY,
    "peer_lost": Code.RENDEZVOUS,
    "hang": Code.HANG,
}
_BY_WORDS = {
    "OOMKilled": Code.OUT_OF_MEMORY,
    "DeadlineExceeded": Code.DEADLINE,
    "its Job was deleted": Code.STOPPED,
    "Evicted": Code.EVICTED,
    "ended with 137": Code.KILLED,
    "ended with 75": Code.PREEMPTED,
}
"""What a Job or a container says of its end; anything else is the program's own failure."""
_BY_STATE = {
    "pending": (Code.STARTING, "The run waits for its agent.", "tradewind logs -f follows it."),
    "running": (Code.RUNNING, "The run is at work.", "Nothing is to be done."),
    "succeeded": (Code.COMPLETED, "The run ended well.", "Nothing is to be done."),
    "requeued": (Code.PREEMPTED, "The run was told to end, and committed its state.", "Run it again: it resumes."),
    "stopped": (Code.STOPPED, "Somebody stopped the run.", "tradewind rerun starts it again."),
    "failed": (Code.UNKNOWN, "The run failed, and no failure was recorded.", "tradewind logs shows its last words."),
}  # fmt: skip


def explain_run(run: Run, events: Sequence[Event], attempts: Sequence[Attempt] = ()) -> Explanation:
    """Explain a run of this machine, or with its `attempts` one that went elsewhere, whose Job said how they ended."""
    return Explanation(job=f"run/{run.id}", state=run.state, causes=rank(_causes(run, events, attempts)))


def _causes(run: Run, events: Sequence[Event], attempts: Sequence[Attempt]) -> Iterable[Cause]:
    failures = [event for event in events if event.kind == "failure"]
    weight = Weight.ENDED if run.state == "failed" else Weight.PAST
    for failure in reversed(failures):
        verdicts = [e for e in events if e.kind == "verdict" and e.attempt == failure.attempt]
        yield _failed(run, failure, verdicts, weight)
        weight = Weight.PAST
    ended = [attempt for attempt in attempts if attempt.reason and run.state == "failed"][-1:]
    yield from (_ended(run, attempt) for attempt in ended)
    code, text, remedy = _BY_STATE[run.state]
    weight = Weight.REST if run.state == "failed" and (failures or ended) else Weight.SAID
    yield Cause(
        code=code,
        text=text,
        remedy=remedy,
        weight=weight,
        evidence=(fact(f"run/{run.id}", "state", run.state),),
    )


def _failed(run: Run, failure: Event, verdicts: Sequence[Event], weight: float) -> Cause:
    said = str(failure.data.get("exception", "")) or f"exit code {failure.data.get('exit_code')}"
    code = _BY_CLASS.get(str(failure.data.get("class", "")), Code.USER_ERROR)
    return Cause(
        code=code,
        text=f"Rank {failure.rank} failed first in attempt {failure.attempt}: {said}",
        remedy=f"tradewind logs {run.id} shows it first, with its traceback.",
        weight=weight,
        evidence=(
            _fact(run, failure, "failure.exception", said),
            *(_fact(run, each, "verdict", _verdict(each)) for each in verdicts[-1:]),
        ),
    )


def _ended(run: Run, attempt: Attempt) -> Cause:
    """How the cluster said that an attempt ended, before its Job was deleted."""
    said = str(attempt.reason)
    code = next((known for words, known in _BY_WORDS.items() if words in said), Code.USER_ERROR)
    return Cause(
        code=code,
        text=f"Attempt {attempt.index} ended: {said}",
        remedy=f"tradewind show {run.id} has what was recorded; the Job and its logs are gone if it was deleted.",
        weight=Weight.ENDED - 0.01,
        evidence=(fact(f"run/{run.id}", f"attempts[{attempt.index}].reason", said),),
    )


def _verdict(event: Event) -> str:
    return ", ".join(
        f"{key} {value}" for key, value in event.data.items() if isinstance(value, str | int | float)
    )


def _fact(run: Run, event: Event, field: str, value: str) -> Evidence:
    moment = datetime.datetime.fromtimestamp(event.t_s, datetime.UTC).isoformat(timespec="milliseconds")
    return fact(f"run/{run.id}", field, value, moment.replace("+00:00", "Z"))
