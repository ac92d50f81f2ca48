"""Hang detection on injected clocks: what is noticed, how soon, who is named, and what is left in peace."""

import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator

import pytest

from tradewind.diagnose.hang import STOPPED, Evidence, Hang, HangDetector
from tradewind.diagnose.process import read_process

RANKS = (0, 1, 2, 3)
STEP_TIMES_S = [0.005, 0.04, 0.12, 0.35, 1.0, 10.0]


class Group:
    """A synchronous group on a clock of its own, with an agent that looks as often as it is asked to."""

    def __init__(self, *, arrivals: bool = True) -> None:
        self.now_s = 1000.0
        self.detector = HangDetector(RANKS, self.now_s)
        self.arrivals = arrivals
        self.step = 0
        self.cpu_s = dict.fromkeys(RANKS, 0.0)
        self.looked_s = self.now_s

    def run(self, duration_s: float, *, idle: bool = False) -> Hang | None:
        """One step in which rank 1 arrives last; with `idle` it burns no CPU, as if it waited for a disk."""
        for rank in RANKS:
            self._enter(rank, "compute" if rank == 1 else "communication")
        if hang := self.wait(duration_s, busy=() if idle else (1,)):
            return hang
        self.step += 1
        for rank in RANKS:
            self.detector.observe(rank, self.step, self.now_s)
        return None

    def _enter(self, rank: int, phase: str) -> None:
        if self.arrivals:
            self.detector.enter(rank, phase, self.now_s)

    def wait(
        self, seconds: float, *, busy: tuple[int, ...] = (), stopped: tuple[int, ...] = ()
    ) -> Hang | None:
        """Let time pass, looking at the processes; the first hang that is reported ends it."""
        until_s = self.now_s + seconds
        while (look_s := self.looked_s + self.detector.look_every_s()) <= until_s:
            for rank in busy:
                self.cpu_s[rank] += 0.5 * (look_s - self.now_s)
            self.now_s = self.looked_s = look_s
            for rank in RANKS:
                state = "T" if rank in stopped else "S"
                self.detector.look(rank, look_s, state, self.cpu_s[rank])
            if hang := self.detector.overdue(look_s):
                return hang
        self.now_s = until_s
        return None

    def learnt(self, step_s: float = 0.1) -> "Group":
        """After a hundred steps of this length."""
        for _ in range(100):
            assert self.run(step_s) is None
        return self


def durations(step_s: float, steps: int, seed: int) -> Iterator[float]:
    """Step times with noise; one step in 200 takes ten times as long, and now and then five in a row do."""
    rng = random.Random(seed)
    burst = 0
    for _ in range(steps):
        burst = 5 if rng.random() < 0.0003 else burst - 1
        slow = burst > 0 or rng.random() < 0.005
        yield step_s * rng.lognormvariate(0.0, 0.05) * (10.0 if slow else 1.0)


@pytest.mark.parametrize("arrivals", [True, False], ids=["arrivals known", "steps only"])
@pytest.mark.parametrize("step_s", STEP_TIMES_S)
def test_ten_thousand_steps_raise_no_alarm_and_a_stop_is_seen(step_s: float, arrivals: bool) -> None:
    """Steps ten times slower, even idle ones, raise no alarm; a stop is seen within max(1 s, 3 x p99)."""
    group = Group(arrivals=arrivals)
    took = list(durations(step_s, 10_000, seed=int(step_s * 1000)))
    assert sum(duration > 5 * step_s for duration in took) > 30
    for duration in took:
        assert group.run(duration, idle=duration > 5 * step_s) is None
    usual = sorted(duration for duration in took if duration < 5 * step_s)
    stopped_s = group.now_s
    hang = group.wait(1000 * step_s, stopped=(2,))
    assert hang is not None
    assert (hang.ranks, hang.step, hang.evidence) == ((2,), 10_001, Evidence.STOPPED)
    assert group.now_s - stopped_s <= max(1.0, 3 * usual[int(0.99 * len(usual))])


def test_a_stop_inside_a_slow_step_names_the_stopped_rank() -> None:
    """While a rank works on a slow step, another that is stopped is the guilty one."""
    group = Group().learnt()
    assert group.wait(0.9, busy=(1,)) is None
    hang = group.wait(2.0, busy=(1,), stopped=(3,))
    assert hang is not None
    assert (hang.ranks, hang.evidence) == ((3,), Evidence.STOPPED)


def test_a_short_stop_is_let_pass() -> None:
    """A rank that is stopped and goes on within half a second is no hang, and its clock starts afresh."""
    group = Group().learnt()
    for _ in range(5):
        assert group.wait(0.5, stopped=(2,)) is None
        assert group.wait(0.2, busy=(2,)) is None


def test_a_debugger_is_no_hang() -> None:
    """State `t`, stopped by a tracer, is a person looking, and gets the patience of a silent rank."""
    group = Group().learnt()
    for tick in range(40):
        group.detector.look(2, group.now_s + tick / 10, "t", 0.0)
        assert group.detector.overdue(group.now_s + tick / 10) is None


def test_the_one_that_did_not_arrive_is_named() -> None:
    """Of ranks that are all silent in the same step, those that wait in the collective are innocent."""
    group = Group().learnt()
    for rank in RANKS:
        group.detector.enter(rank, "compute" if rank == 2 else "communication", group.now_s)
    hang = group.wait(30.0)
    assert hang is not None
    assert (hang.ranks, hang.step, hang.evidence) == ((2,), 101, Evidence.SILENT)
    assert 5.0 <= group.now_s - hang.since_s <= 5.5
    assert hang.reason == ("rank 2 gave no sign and burnt no CPU for 5 s in step 101; a step takes 0.1 s")


def test_the_slowest_is_named_where_arrivals_are_unknown() -> None:
    """With nothing but steps, the rank with the fewest is the guilty one; in a tie all are named."""
    group = Group(arrivals=False).learnt()
    for rank in (0, 1, 3):
        group.detector.observe(rank, 101, group.now_s)
    hang = group.wait(30.0)
    assert hang is not None
    assert (hang.ranks, hang.step) == ((2,), 101)
    tied = Group(arrivals=False).learnt().wait(30.0)
    assert tied is not None
    assert tied.ranks == RANKS
    assert tied.reason.startswith("every rank gave no sign")


def test_a_busy_rank_gets_minutes() -> None:
    """A rank that computes while the others wait may be compiling: it is reported after five minutes."""
    group = Group().learnt()
    for rank in RANKS:
        group.detector.enter(rank, "compute" if rank == 0 else "communication", group.now_s)
    assert group.wait(290.0, busy=(0,)) is None
    hang = group.wait(20.0, busy=(0,))
    assert hang is not None
    assert (hang.ranks, hang.evidence) == ((0,), Evidence.BEHIND)


def test_a_collective_in_which_everyone_waits_is_a_hang() -> None:
    """When all have arrived and nothing moves (a network cut, mismatched calls) every rank is named."""
    group = Group().learnt()
    for rank in RANKS:
        group.detector.enter(rank, "communication", group.now_s)
    hang = group.wait(60.0)
    assert hang is not None
    assert (hang.ranks, hang.evidence) == (RANKS, Evidence.UNKNOWN)
    assert group.now_s - hang.since_s >= 30.0


def test_without_any_look_silence_is_still_noticed() -> None:
    """Where no process can be looked at, thirty seconds without a sign are a hang."""
    blind = HangDetector(RANKS, 0.0)
    for step in range(1, 101):
        for rank in RANKS:
            blind.observe(rank, step, step * 0.1)
    assert blind.overdue(10.0 + 29.9) is None
    hang = blind.overdue(10.0 + 30.1)
    assert hang is not None
    assert hang.evidence is Evidence.UNKNOWN


@pytest.mark.parametrize("phase", ["checkpoint_stall", "evaluation", "restore", "other"])
def test_declared_slow_phases_are_granted(phase: str) -> None:
    """A phase known to be slow holds up the whole group for minutes without an alarm, idle or not."""
    group = Group().learnt()
    for rank in RANKS:
        group.detector.enter(rank, phase if rank == 0 else "communication", group.now_s)
    assert group.wait(590.0) is None
    hang = group.wait(60.0)
    assert hang is not None
    assert hang.ranks == (0,)


def test_declared_phases_do_not_teach_the_statistic() -> None:
    """After a minute-long checkpoint patience is what it was, while an undeclared slow step raises it."""
    group = Group().learnt()
    before_s = group.detector.patience_s(Evidence.SILENT)
    group.detector.enter(0, "checkpoint_stall", group.now_s)
    assert group.run(60.0) is None
    assert group.detector.patience_s(Evidence.SILENT) == before_s
    assert group.run(4.0) is None
    assert group.detector.patience_s(Evidence.SILENT) == pytest.approx(12.0)


def test_the_first_steps_may_take_long() -> None:
    """Before steps are known, compiling and warming up get the startup allowance; a stop is seen anyway."""
    group = Group()
    assert group.wait(300.0) is None
    assert group.run(200.0) is None
    began_s = group.now_s
    hang = group.wait(60.0, stopped=(1,))
    assert hang is not None
    assert hang.ranks == (1,)
    assert group.now_s - began_s <= 5.0


def test_a_new_generation_starts_with_a_clean_slate() -> None:
    """After a recovery nobody is late, the pause is no step time, and the step times are still known."""
    group = Group().learnt()
    assert group.wait(1.0, stopped=(2,)) is not None
    group.now_s += 40.0
    group.looked_s = group.now_s
    group.detector.renew(RANKS, group.now_s, step=100)
    assert group.wait(3.0) is None
    assert group.run(0.1) is None
    assert group.detector.times.longest < 1.0
    hang = group.wait(2.0, stopped=(0,))
    assert hang is not None
    assert hang.step == 102
    assert hang.deadline_s == pytest.approx(0.65)


def test_a_pause_of_the_machine_is_excused() -> None:
    """When the whole machine stood still nobody is guilty, and the pause is not taken for a step."""
    group = Group().learnt()
    group.now_s += 120.0
    group.looked_s = group.now_s
    group.detector.excuse(120.0)
    assert group.detector.overdue(group.now_s) is None
    assert group.run(0.1) is None
    assert group.detector.times.longest < 1.0


def test_a_rank_that_ended_is_not_waited_for() -> None:
    """A rank whose exit was seen is no longer a suspect."""
    group = Group().learnt()
    group.detector.leave(2)
    group.detector.enter(0, "communication", group.now_s)
    hang = group.detector.overdue(group.now_s + 400)
    assert hang is not None
    assert 2 not in hang.ranks


def test_processes_are_read() -> None:
    """This process runs, has burnt CPU and began in the past; a process that never was has no state."""
    mine = read_process(os.getpid())
    assert mine is not None
    assert mine.state == "R"
    assert 0.0 < mine.cpu_s < 10_000.0
    assert 0.0 < time.time() - mine.started_s < 10_000.0
    assert read_process(2**22 + 1) is None


def test_a_stopped_process_is_read_as_stopped() -> None:
    """After SIGSTOP a real process is in the state that the detector calls stopped."""
    with subprocess.Popen(["sleep", "60"]) as process:
        try:
            process.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
            found = read_process(process.pid)
            assert found is not None
            assert found.state == STOPPED
        finally:
            process.kill()
