"""The training loop's companion: resume, commit, checkpoint, preemption, metrics, ledger."""

import atexit
import itertools
import os
import time
import warnings
import weakref
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

from tradewind import names
from tradewind.errors import SpecError
from tradewind.train import generation, ledger, stacks
from tradewind.train.cadence import Cadence
from tradewind.train.checkpoint import Memory
from tradewind.train.checkpoint.mirror import SENDING
from tradewind.train.communication import observe
from tradewind.train.distributed import Peers
from tradewind.train.journal import Journal
from tradewind.train.keeper import Keeper
from tradewind.train.preempt import Preemption, fits
from tradewind.train.pulse import Pulse, apart
from tradewind.train.status import Status

_END = object()
_NOTHING_SAID = (0, 1, 0, SENDING, 1)
"""Votes before the first: see `Loop._votes`."""
_LEDGER_EVERY_S = 5.0
MEMORY_SHARE = 0.002
"""Most of a step's time that staging into memory may take, on average, unless `max_recompute` says more."""


class Stateful(Protocol):
    """Anything whose state can be taken and put back."""

    def state_dict(self) -> dict[str, Any]:
        """The state."""

    def load_state_dict(self, state: dict[str, Any]) -> Any:
        """Take the state."""


class Loop:
    """Iterate over `data` and train; a run that was killed continues from its last checkpoint.

    ```python
    loop = train.Loop(model=model, optimizer=optimizer, data=batches)
    for batch in loop:
        ...                      # forward, backward, optimizer.step()
        loop.log(loss=loss)
    ```

    Construction loads the newest whole checkpoint of `checkpoint_dir` into what it was given, in
    place. A step is committed when the loop's body ends; every `every_steps` committed steps, at
    the end, and on SIGTERM a checkpoint is written, and the newest `keep` are kept. After SIGTERM
    the process exits with the requeue code (75). With several workers every one of them makes a
    Loop; model, optimizer, scheduler and `extra` are held alike by all, or are cut over them: as DTensors
    (`fully_shard`), or `checkpoint.Rows` in a state. Another number of workers gets its cut of them.

    Under Tradewind the state is also staged into memory that outlives a worker, after every step when
    that takes under 0.2% of the time, else less often; a worker that dies costs the steps since. With
    `max_recompute` it is staged every so many steps, whatever it takes, and where there are several hosts the
    copy of the one before in another host's memory is waited for. Checkpoints are then written
    from there, in the background; one that fails is reported, and only at the end is it an error. Leave
    the loop early with several workers, and what is being written is finished at the end of `with
    train.distributed()`.

    `checkpoint_dir` is `checkpoints/` in the run's folder when Tradewind started this process, and
    in the working directory otherwise.
    """

    def __init__(
        self,
        *,
        model: Any,
        optimizer: Stateful,
        data: Iterable[Any],
        scheduler: Stateful | None = None,
        extra: Stateful | None = None,
        checkpoint_dir: str | Path | None = None,
        every_steps: int = 100,
        keep: int = 2,
        max_steps: int | None = None,
        max_recompute: int | None = None,
    ) -> None:
        if every_steps < 1 or keep < 1:
            raise SpecError(f"Loop: every_steps ({every_steps}) and keep ({keep}) must be at least 1")
        if max_recompute is not None and max_recompute < 1:
            raise SpecError(f"Loop: max_recompute is {max_recompute}; it must be at least 1")
        self.step = 0
        """Committed steps; in the body of the first step it is 0."""
        self._ledger = ledger.process_ledger()
        self._journal = Journal.from_environment()
        self._peers = Peers()
        self._pulse = Pulse(self._peers, _NOTHING_SAID)
        self._preemption = Preemption()
        self._model, self._data = model, data
        self._every_steps, self._max_steps = every_steps, max_steps
        self._max_recompute = max_recompute
        self._cadence = Cadence(MEMORY_SHARE, most=every_steps)
        parts = {"model": _bare(model), "optimizer": optimizer, "scheduler": scheduler, "extra": extra}
        self._keeper = Keeper(
            {name: part for name, part in parts.items() if part is not None},
            data,
            root=Path(checkpoint_dir or default_checkpoint_dir()).absolute(),
            keep=keep,
            peers=self._peers,
            journal=self._journal,
            memory=memory_of_environment(self._peers),
        )
        self._in_body = False
        self._due_at = 0
        """The step after which there is something to do besides noting it."""
        self._step_began_s = 0.0
        self._ledger_due_s = 0.0
        atexit.register(_write_ledger_of, weakref.ref(self))
        generation.on_leave(self._let_go)
        be_watched(self._ledger)
        self._journal.write("start", rank=self._peers.rank, world=self._peers.world, pid=os.getpid())
        self._preemption.listen()
        if self._peers.world > 1:
            generation.on_parting(self._keeper.settle)
        with self._ledger.within(ledger.RESTORE):
            self.step = self._keeper.restore()

    def _let_go(self) -> None:
        self._preemption.unlisten()
        self._keeper.close()

    def __iter__(self) -> Iterator[Any]:
        observe(self._model, self._ledger)
        self._keeper.restore_random()
        try:
            yield from self._steps()
        finally:
            self._in_body = False
            self._ledger.switch(ledger.OTHER)
            self._preemption.unlisten()
            if self._peers.world == 1:
                with self._ledger.within(ledger.CHECKPOINT_STALL):
                    self._keeper.settle()
            self._write_ledger()

    def _steps(self) -> Iterator[Any]:
        self._ledger.switch(ledger.DATA_WAIT)
        batches = self._batches()
        self._step_began_s = time.perf_counter()
        while not self._keeper.stopped and (self._max_steps is None or self.step < self._max_steps):
            batch = next(batches, _END)
            if batch is _END:
                break
            self._ledger.switch(ledger.COMPUTE)
            self._in_body = True
            yield batch
            self._in_body = False
            self._commit()
        self._ledger.switch(ledger.OTHER)
        self._pulse.settle()
        self._finish()
        self._journal.write("end", step=self.step)

    def _batches(self) -> Iterator[Any]:
        skip = self._keeper.skip
        if skip:
            warnings.warn(
                f"the data has no state_dict: its first {skip} batches are read and thrown away, which "
                "resumes correctly only if it yields the same order again",
                stacklevel=4,
            )
        return itertools.islice(iter(self._data), skip, None)

    def _commit(self) -> None:
        self._ledger.switch(ledger.OTHER)
        self.step += 1
        self._journal.step(self.step)
        self._cadence.step_took(time.perf_counter() - self._step_began_s)
        if self.step >= self._due_at or (self._preemption.asked and self._peers.world == 1):
            self._tend()
        self._step_began_s = time.perf_counter()
        self._ledger.switch(ledger.DATA_WAIT)

    def _tend(self) -> None:
        """What is not due after every step: to agree, leave, stage, save, and say how things are."""
        votes = self._votes() if self._peers.world == 1 else self._pulse.read()
        leave, interval, without, mirror_state, pulse = votes
        self._keeper.look()
        if leave:
            self._leave()
        staged = self._keep(interval, without, mirror_state)
        pulse, interval = self._rhythm(pulse, interval)
        # After staging: who reads this pulse knows that every worker has staged this step.
        if staged or self.step % pulse == 0:
            self._pulse.beat(self._votes())
        next_pulse = 1 if self._pulse.is_under_way else pulse
        rhythm = (next_pulse, interval, self._every_steps)
        self._due_at = min(self.step - self.step % each + each for each in rhythm)

    def _rhythm(self, pulse: int, interval: int) -> tuple[int, int]:
        """Steps from pulse to pulse and from staging to staging, by what is agreed."""
        if self._keeper.memory is None:
            return pulse, self._every_steps
        if self._keeper.mirrors:
            # Once between two stagings, or the second would not know what came of the first on its way to the next host.
            return max(1, min(pulse, interval // 2)), interval
        # With every staging anyway: besides only where that is too seldom.
        return min(pulse, interval), interval

    def _votes(self) -> list[int]:
        """To leave, steps from staging to staging, what to do without, whether the next host has it, steps between pulses."""
        interval = self._max_recompute or self._cadence.interval
        pulse = apart(self._cadence.step_s)
        return [int(self._preemption.asked), interval, self._keeper.wants, self._keeper.mirror_state, pulse]

    def _leave(self) -> None:
        """Have the state as deep as there is time for: in memory, in another host's, on disk."""
        with self._ledger.within(ledger.CHECKPOINT_STALL):
            tier = self._keeper.secure(self.step)
        left_s = self._preemption.left_s
        if all(self._peers.gather(fits(self._keeper.disk_s, left_s))):
            self._finish()
            tier = "disk"
        else:
            self._keeper.write_no_more()
        self._journal.write("preempt", step=self.step, tier=tier)
        raise SystemExit(int(names.ExitCode.REQUEUE))

    def _keep(self, interval: int, without: int, mirror_state: int) -> bool:
        """Stage and save this step where it is due; whether it was staged, or tried to."""
        with self._ledger.within(ledger.CHECKPOINT_STALL):
            # What memory was to keep from now on, the disk does.
            due = self._keeper.agree(without) or self.step % self._every_steps == 0
            staging = self._keeper.memory is not None and (due or self.step % interval == 0)
            if staging:
                self._stage()
                self._keeper.mirror(self.step, mirror_state, wait=self._max_recompute is not None)
            if due:
                self._keeper.checkpoint(self.step)
        if due or time.monotonic() >= self._ledger_due_s:
            self._write_ledger()
        return staging

    def _stage(self) -> None:
        seconds = self._keeper.stage(self.step)
        if seconds is not None:
            self._cadence.staging_took(seconds)

    def _finish(self) -> None:
        with self._ledger.within(ledger.CHECKPOINT_STALL):
            wrote = self._keeper.finish(self.step)
        if wrote:
            self._write_ledger()

    def log(self, **metrics: Any) -> None:
        """Record named numbers (or tensors of one element) of the step in whose body this is called."""
        step = self.step + self._in_body
        for name, value in metrics.items():
            number = value.item() if hasattr(value, "item") else value
            self._journal.write("metric", step=step, name=name, value=float(number))

    def stop(self) -> None:
        """Make the step in whose body this is called the last one, on every worker alike.

        It is remembered: started again, the run trains no further.
        """
        self._keeper.stopped = True

    def _write_ledger(self) -> None:
        self._journal.write("ledger", **self._ledger.entry())
        self._ledger_due_s = time.monotonic() + _LEDGER_EVERY_S


def _write_ledger_of(loop: "weakref.ref[Loop]") -> None:
    alive = loop()
    if alive is not None:
        alive._write_ledger()


def be_watched(own_ledger: ledger.Ledger) -> None:
    """Where an agent watches, show it what this worker does, and let it look into this process."""
    folder, dump = os.environ.get(names.ENV_MEMORY), os.environ.get(names.ENV_STACKS)
    if folder:
        own = Path(folder, f"rank{os.environ.get('RANK', '0')}")
        own_ledger.show(Status(own.with_suffix(".status")).say)
        # A worker ends without taking its memory apart, so the server may go on to the end.
        stacks.serve_debug(own.with_suffix(".sock"), stop_at_exit=False)
    if dump:
        stacks.dump_on_signal(Path(dump))


def memory_of_environment(peers: Peers) -> Memory | None:
    """The memory tier in the folder that the agent gave; None where nobody would keep it."""
    folder = os.environ.get(names.ENV_MEMORY)
    if not folder:
        return None
    return Memory(
        Path(folder),
        rank=peers.rank,
        world=peers.world,
        local_rank=int(os.environ.get("LOCAL_RANK", "0")),
        local_world=int(os.environ.get("LOCAL_WORLD_SIZE", "1")),
        generation=int(os.environ.get(names.ENV_ATTEMPT, "0")),
    )


def default_checkpoint_dir() -> Path:
    """The run's checkpoint folder under Tradewind, `./checkpoints` otherwise."""
    return Path(os.environ.get(names.ENV_RUN_DIR, "."), names.CHECKPOINTS_DIR)


def _bare(model: Any) -> Any:
    """The model inside DistributedDataParallel and torch.compile, so that a checkpoint fits both."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if inner is None and type(model).__name__ in ("DistributedDataParallel", "DataParallel"):
            inner = model.module
        if inner is None:
            return model
        model = inner
