"""What a foreground run shows."""

from pathlib import Path

import pytest

from tradewind.agent import Job, Progress
from tradewind.cli.live import Watcher, describe, describe_event, status_line
from tradewind.diagnose.first_failure import Failure
from tradewind.store import Event, Run

TEXT = "\n".join(f"line {n}" for n in range(40))
FAILURE = Failure(rank=3, kind="exception", exception="ValueError: x", text=TEXT, exit_code=1, t_s=1.0)


@pytest.mark.parametrize(
    ("progress", "line"),
    [
        (Progress(), "pending  attempt 0"),
        (
            Progress(
                state="running", attempt=2, steps={0: 5, 1: 4}, metrics={"loss": 0.123456}, checkpoint=3
            ),
            "running  attempt 2  step 4  loss 0.1235  checkpoint 3",
        ),
        (
            Progress(state="running", metrics=dict.fromkeys("abcde", 1.0), recovered_s=2.345),
            "running  attempt 0  a 1  b 1  c 1  d 1  recovered in 2.3 s",
        ),
    ],
)
def test_the_line_of_state(progress: Progress, line: str) -> None:
    """State, attempt, step, a few metrics, checkpoint and recovery are in one line, and what is unknown is not."""
    assert status_line(progress) == line


def test_a_failure_is_told_by_who_what_and_where() -> None:
    """The same words for a failure just seen and for one in the store: rank, class, exception, last lines."""
    stored = Event(
        run="r",
        attempt=2,
        rank=3,
        t_s=1.0,
        kind="failure",
        data={"class": "exception", "exception": "ValueError: x", "text": TEXT},
    )
    seen, kept = describe(FAILURE).splitlines(), describe_event(stored).splitlines()
    assert seen[0] == "first failure: rank 3 (exception): ValueError: x"
    assert kept[0] == "first failure: attempt 2 rank 3 (exception): ValueError: x"
    assert seen[1:] == kept[1:] == [f"  | line {n}" for n in range(28, 40)]


def test_each_thing_is_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Rank 0's lines go to stdout once each, through attempts; a failure is told once; state when it changes."""
    job = Job(run="r", run_dir=tmp_path, workdir=tmp_path, script="x.py", workers=2)
    for attempt in (0, 1):
        job.log(attempt, 0).parent.mkdir(parents=True)
    job.log(0, 0).write_text("one\ntor")
    with Watcher(job, Run(id="r", name="mine", created_s=1.0)) as watcher:
        watcher(Progress(state="running", steps={0: 1}))
        watcher(Progress(state="running", steps={0: 2}))
        watcher(Progress(state="recovering", failure=FAILURE))
        watcher(Progress(state="recovering", failure=FAILURE))
        job.log(1, 0).write_text("two\n")
        watcher(Progress(state="running", attempt=1, failure=FAILURE))
    said = capsys.readouterr()
    assert said.out == "one\ntor\ntwo\n"
    assert said.err.count("first failure") == 1
    assert [line for line in said.err.splitlines() if line.startswith(("run", "["))] == [
        "run r (mine), 2 workers",
        "[running  attempt 0  step 1]",
        "[recovering  attempt 0]",
        "[running  attempt 1]",
    ]


def test_a_quiet_watcher_says_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """For `-o json` nothing but the result is printed."""
    job = Job(run="r", run_dir=tmp_path, workdir=tmp_path, script="x.py")
    with Watcher(job, Run(id="r", name="r", created_s=1.0), quiet=True) as watcher:
        watcher(Progress(state="running", failure=FAILURE))
    assert capsys.readouterr() == ("", "")
