"""The driver of a run on Ray: reserves room for all hosts, starts an agent on each, and replaces hosts that are lost.

The placement group is the gang: there is room for all hosts or none is started. Host 0's agent leads the run; how it
ends is how the run ends. Everything that hosts print goes to the driver's output, `[hostN]` in front, which is what
`ray job logs` and `tradewind logs` show.
"""

import logging
import queue
import secrets
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from tradewind import names
from tradewind.errors import SpecError
from tradewind.launch.ray.context import RayContext
from tradewind.launch.ray.host import Host
from tradewind.names import ExitCode
from tradewind.spec import RunSpec, from_stored

_SETTLE_S = 5.0
"""A host that ended by itself is started again after this, unless the run is over by then."""
MAX_LIVES = 10
"""How often one host is started, whatever became of it before."""
_OWN_WORDS = ("CPU", "GPU", "memory")


class Description(msgspec.Struct, frozen=True, kw_only=True):
    """RUN.json as far as the driver reads it."""

    id: str
    spec: dict[str, Any]
    ray: RayContext = RayContext()


class Told(NamedTuple):
    """What happened to a host; `life` counts its actors."""

    host: int
    life: int
    lines: Sequence[str] = ()
    exit_code: int | None = None
    lost: str = ""


def read_description(path: Path) -> Description:
    """What the launcher wrote; raises SpecError when it is no description of a run."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Description)
    except (OSError, msgspec.DecodeError) as error:
        raise SpecError(f"{path}: does not describe a run: {error}") from error


def bundle(spec: RunSpec) -> dict[str, float]:
    """What each host is asked for, in Ray's words."""
    need, workers = spec.resources, spec.workers_per_host
    found = {"CPU": need.cpus * workers if need.cpus else 1.0}
    if need.gpus:
        found["GPU"] = float(need.gpus * workers)
    if need.memory_gib:
        found["memory"] = float(round(need.memory_gib * workers * 2**30))
    if need.gpu_type:
        found[f"accelerator_type:{need.gpu_type}"] = 0.001
    return found | {name: float(count) for name, count in spec.placement.host_resources.items()}


def main(path: Path) -> int:
    """Run to the end; the exit code is the run's."""
    import ray

    about = read_description(path)
    ray.init(address="auto", log_to_driver=False, logging_level=logging.WARNING)
    with Driver(about, path) as driver:
        return driver.run()


class Driver:
    """One run: its placement group and its actors."""

    def __init__(self, about: Description, path: Path) -> None:
        self.about, self._path = about, str(path)
        self.spec = from_stored(RunSpec, about.spec)
        self._said: queue.SimpleQueue[Told | int] = queue.SimpleQueue()
        self._token = secrets.token_hex(32)
        self._actors: dict[int, Any] = {}
        self._lives = [0] * self.spec.hosts
        self._leader = ("", 0)
        self._again: dict[int, float] = {}
        """When to start a host again, on the monotonic clock."""
        self._stopping = False
        self._group: Any = None

    def __enter__(self) -> "Driver":
        for signum in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signum, lambda signum, frame: self._said.put(signum))
        return self

    def __exit__(self, *_: object) -> None:
        import ray

        for actor in self._actors.values():
            ray.kill(actor)
        if self._group is not None:
            ray.util.remove_placement_group(self._group)

    def run(self) -> int:
        """Reserve, start, and follow what happens until the leader has ended."""
        if not self._reserve():
            return ExitCode.REQUEUE
        for index in range(self.spec.hosts):
            self._start(index)
        while True:
            told = self._next()
            if told is None:
                continue
            if isinstance(told, int):
                self._stop()
            elif told.life == self._lives[told.host]:
                code = self._take(told)
                if code is not None:
                    return code

    def _reserve(self) -> bool:
        """Room for all hosts at once; False when it did not come in time."""
        import ray

        wanted, context = bundle(self.spec), self.about.ray
        strategy = context.strategy if self.spec.hosts > 1 else "PACK"
        print(f"tradewind: {self.spec.hosts} hosts, {strategy}, each with {wanted}")
        self._group = ray.util.placement_group([wanted] * self.spec.hosts, strategy=strategy)
        until = time.monotonic() + context.start_deadline_s
        while time.monotonic() < until:
            if self._group.wait(1):
                return True
            if not self._said.empty():  # Asked to end before it began.
                return False
        print(
            f"tradewind: no room for all hosts within {context.start_deadline_s} s; Ray has "
            f"{len(ray.nodes())} nodes and {ray.available_resources()}: add nodes, ask for less, or set "
            "`strategy: PACK` in the context if hosts may share a node"
        )
        return False

    def _start(self, index: int) -> None:
        """A new actor for this host, and its agent in it; should it be lost at once, that is heard like any loss."""
        import ray

        self._again.pop(index, None)
        self._lives[index] += 1
        life, actor = self._lives[index], self._actor(index)
        self._actors[index] = actor
        try:
            address, port, process = ray.get(actor.where.remote(), timeout=self.about.ray.start_deadline_s)
        except ray.exceptions.RayError as error:
            self._said.put(Told(index, life, lost=first_line(error)))
            return
        print(f"tradewind: host {index} is process {process} at {address}")
        if index == 0 and address != self._leader[0]:
            self._lead_from(address, port)
        threading.Thread(target=self._hear, args=(index, life, actor, self._env(index, address))).start()

    def _actor(self, index: int) -> Any:
        import ray
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        context, wanted = self.about.ray, bundle(self.spec)
        root = f"{(context.run_root or context.scratch).rstrip('/')}/{self.about.id}"
        lasting = self.spec.checkpoint_dir or f"{root}/{names.CHECKPOINTS_DIR}"
        options = {
            "num_cpus": wanted["CPU"],
            "num_gpus": wanted.get("GPU", 0),
            "memory": wanted.get("memory"),
            "resources": {name: amount for name, amount in wanted.items() if name not in _OWN_WORDS},
            "scheduling_strategy": PlacementGroupSchedulingStrategy(self._group, index),
            "max_concurrency": 3,
        }
        scratch = f"{context.scratch.rstrip('/')}/{self.about.id}"
        return ray.remote(Host).options(**options).remote(self._path, index, scratch, lasting)

    def _lead_from(self, address: str, port: int) -> None:
        """The leader is at another address than before: the others have to be told, by a new start."""
        moved = self._leader[0] != ""
        self._leader = (address, port)
        for index in range(1, self.spec.hosts) if moved else ():
            self._end(index)
            self._again[index] = time.monotonic()

    def _env(self, index: int, address: str) -> dict[str, str]:
        """Who this host is; only the leader's place among the hosts is ever used."""
        hosts = [f"{self._leader[0]}:{self._leader[1]}"] * self.spec.hosts
        return {
            names.ENV_HOSTS: ",".join(hosts),
            names.ENV_HOST: str(index),
            names.ENV_ADDRESS: address,
            names.ENV_TOKEN: self._token,
            names.ENV_START_DEADLINE: str(self.about.ray.start_deadline_s),
        }

    def _hear(self, index: int, life: int, actor: Any, env: dict[str, str]) -> None:
        """On a thread of its own: pass on what a host says until it has ended or is lost."""
        import ray

        try:
            for reference in actor.run.options(num_returns="streaming").remote(env):
                found = ray.get(reference)
                code = found if isinstance(found, int) else None
                self._said.put(Told(index, life, () if code is not None else found, code))
        except ray.exceptions.RayError as error:
            self._said.put(Told(index, life, lost=first_line(error)))

    def _next(self) -> Told | int | None:
        """What is heard next, or None when it is time to start a host again, which is done."""
        due = min(self._again.values(), default=None)
        try:
            return self._said.get(timeout=None if due is None else max(0.0, due - time.monotonic()))
        except queue.Empty:
            for index in [index for index, at in self._again.items() if at <= time.monotonic()]:
                self._start(index)
            return None

    def _take(self, told: Told) -> int | None:
        """Print what a host said; the run's exit code once it has one."""
        for line in told.lines:
            print(f"[host{told.host}] {line}")
        if told.lines:
            return None
        if told.host == 0 and told.exit_code is not None:
            return told.exit_code
        if told.exit_code == ExitCode.OK:
            return None
        how = f"is lost: {told.lost}" if told.lost else f"ended with {told.exit_code}"
        print(f"tradewind: host {told.host} {how}")
        if self._stopping or self._lives[told.host] >= MAX_LIVES:
            print(f"tradewind: it is not started again, after {self._lives[told.host]} times")
            return ExitCode.INTERRUPTED if self._stopping else ExitCode.FAILED
        self._again[told.host] = time.monotonic() + (0.0 if told.lost else _SETTLE_S)
        return None

    def _stop(self) -> None:
        """Have the leader end the run in good order; asked again, at once."""
        leader = self._actors.get(0)
        if leader is not None:
            leader.stop.remote(now=self._stopping)
        self._stopping = True

    def _end(self, index: int) -> None:
        """End a host's actor, whatever its agent does."""
        import ray

        actor = self._actors.pop(index, None)
        if actor is not None:
            self._lives[index] += 1  # What its thread still hears of it is of no interest.
            ray.kill(actor)


def first_line(error: Exception) -> str:
    """What an error is about."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
