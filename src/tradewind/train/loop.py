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
from tradewind.train import checkpoint, generation, ledger
from tradewind.train.communication import observe
from tradewind.train.distributed import Peers
from tradewind.train.journal import Journal
from tradewind.train.preempt import Preemption
from tradewind.train.random_state import random_state, set_random_state
from tradewind.train.resume import newest_whole

_END = object()
_LEDGER_EVERY_S = 5.0


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
    Loop, and model, optimizer, scheduler and `extra` are held alike by all.

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
    ) -> None:
        if every_steps < 1 or keep < 1:
            raise SpecError(f"Loop: every_steps ({every_steps}) and keep ({keep}) must be at least 1")
        self.step = 0
        """Committed steps; in the body of the first step it is 0."""
        self._ledger = ledger.process_ledger()
        self._journal = Journal.from_environment()
        self._peers = Peers()
        parts = {"model": _bare(model), "optimizer": optimizer, "scheduler": scheduler, "extra": extra}
        self._parts: dict[str, Any] = {name: part for name, part in parts.items() if part is not None}
        self._model, self._data = model, data
        self._root = Path(checkpoint_dir or default_checkpoint_dir()).absolute()
        self._every_steps, self._keep, self._max_steps = every_steps, keep, max_steps
        self._preemption = Preemption(self._peers)
        self._saved: int | None = None
        self._random: dict[str, Any] | None = None
        self._skip = 0
        self._in_body = False
        self._ledger_due_s = 0.0
        self._stopped = False
        atexit.register(_write_ledger_of, weakref.ref(self))
        generation.on_leave(self._preemption.unlisten)
        self._journal.write("start", rank=self._peers.rank, world=self._peers.world, pid=os.getpid())
        self._preemption.listen()
        with self._ledger.within(ledger.RESTORE):
            self._resume()

    def _resume(self) -> None:
        found = newest_whole(self._root, self._peers, self._journal)
        if found is None:
            return
        folder, loaded = found
        if set(loaded.shared) != set(self._parts):
            raise SpecError(
                f"{folder} holds {sorted(loaded.shared)} and this Loop was given {sorted(self._parts)}; give "
                "it the same parts, or another checkpoint_dir to start afresh"
            )
        for name, part in self._parts.items():
            part.load_state_dict(loaded.shared[name])
        self._resume_data(loaded)
        self.step = self._saved = loaded.step
        # A worker the checkpoint never had keeps the generators that its script seeded.
        self._stopped = loaded.own["stopped"]
        self._random = loaded.own["random"] if self._peers.rank < loaded.world else None
        self._journal.write("resume", step=self.step, path=folder)

    def _resume_data(self, loaded: checkpoint.Loaded) -> None:
        state = loaded.own["data"]
        if state is None:
            self._skip = loaded.step
            return
        if loaded.world != self._peers.world and not getattr(self._data, "elastic", False):
            raise SpecError(
                f"the checkpoint was made by {loaded.world} workers and this run has {self._peers.world}: the "
                "data's state is each worker's own; use the same number of workers, or train.Batches"
            )
        self._data.load_state_dict(state)  # type: ignore[attr-defined]

    def __iter__(self) -> Iterator[Any]:
        observe(self._model, self._ledger)
        if self._random is not None:
            set_random_state(self._random)
            self._random = None
        try:
            yield from self._steps()
        finally:
            self._in_body = False
            self._ledger.switch(ledger.OTHER)
            self._preemption.unlisten()
            self._write_ledger()

    def _steps(self) -> Iterator[Any]:
        self._ledger.switch(ledger.DATA_WAIT)
        batches = self._batches()
        while not self._stopped and (self._max_steps is None or self.step < self._max_steps):
            batch = next(batches, _END)
            if batch is _END:
                break
            self._ledger.switch(ledger.COMPUTE)
            self._in_body = True
            yield batch
            self._in_body = False
            self._commit()
        self._ledger.switch(ledger.OTHER)
        self._preemption.settle()
        if self._saved != self.step:
            self._checkpoint()
        self._journal.write("end", step=self.step)

    def _batches(self) -> Iterator[Any]:
        if self._skip:
            warnings.warn(
                f"the data has no state_dict: its first {self._skip} batches are read and thrown away, which "
                "resumes correctly only if it yields the same order again",
                stacklevel=4,
            )
        return itertools.islice(iter(self._data), self._skip, None)

    def _commit(self) -> None:
        self._ledger.switch(ledger.OTHER)
        self.step += 1
        self._journal.write("step", step=self.step)
        if self._preemption.due():
            self._leave()
        if self.step % self._every_steps == 0:
            self._checkpoint()
        elif time.monotonic() >= self._ledger_due_s:
            self._write_ledger()
        self._ledger.switch(ledger.DATA_WAIT)

    def _leave(self) -> None:
        self._checkpoint()
        self._journal.write("preempt", step=self.step)
        raise SystemExit(int(names.ExitCode.REQUEUE))

    def _checkpoint(self) -> None:
        started = time.monotonic()
        with self._ledger.within(ledger.CHECKPOINT_STALL):
            shared = {name: part.state_dict() for name, part in self._parts.items()}
            stateful = hasattr(self._data, "state_dict")
            cursor = self._data.state_dict() if stateful else None  # type: ignore[attr-defined]
            own = {"random": random_state(), "data": cursor, "stopped": self._stopped}
            folder = checkpoint.save(self._root, self.step, shared, own, peers=self._peers)
            self._saved = self.step
            if self._peers.rank == 0:
                size = sum(file.stat().st_size for file in folder.iterdir())
                stall_s = time.monotonic() - started
                self._journal.write("checkpoint", step=self.step, path=folder, bytes=size, stall_s=stall_s)
                checkpoint.prune(self._root, keep=self._keep, step=self.step)
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
        self._stopped = True

    def _write_ledger(self) -> None:
        self._journal.write("ledger", **self._ledger.entry())
        self._ledger_due_s = time.monotonic() + _LEDGER_EVERY_S


def _write_ledger_of(loop: "weakref.ref[Loop]") -> None:
    alive = loop()
    if alive is not None:
        alive._write_ledger()


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
