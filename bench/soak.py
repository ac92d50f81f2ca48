"""A server that is harmed all the time: its workers are killed and its model version is swapped, under steady load.

The torch ranker of `bench/peers/serving/model.py`, published as two versions and served by its alias; open loop at 0.8 of
the capacity that is measured first; every request has `deadline_ms`. A worker of the version that serves is killed every
`kill_s`, the one that works most, once the last one has been replaced; the alias moves to the other version every `swap_s`, and a swap counts once the server
says that the other version answers. The load goes on, round after round, for `seconds` and until both have happened.

`failed_with_budget` counts the requests that no deadline excuses: a connection that broke, a request without any answer,
a 503 (workers died and none came back in time), and any other status that is neither a 2xx nor a 429. A 429 says that the
request could not be answered inside its deadline: that is `refused`, and a 2xx after the deadline is `late`. Both mean
that time ran out, not that the request was lost, and are shown for whoever doubts that they are few.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import pathlib
import signal
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator

from bench.harness import say
from bench.peers.serving.servers import exported, tensors
from bench.served import Started, started
from tradewind.models import publish, write_package
from tradewind.scale.capacity import find_capacity
from tradewind.scale.histogram import Histogram
from tradewind.scale.load import execute
from tradewind.scale.outcome import LoadPlan, LoadResult
from tradewind.store import open_store

NAME, ALIAS = "soak", "production"
SHARE = 0.8
BUSY = (16, 64)
"""Connections that are enough to keep a batching server busy, and more than enough."""
NUM_WORKERS = 2
"""One that serves, and its spare."""


@dataclasses.dataclass(frozen=True)
class Pace:
    """How long, and how often what is done."""

    seconds: float = 1800.0
    kill_s: float = 60.0
    swap_s: float = 300.0
    deadline_ms: float = 500.0
    round_s: float = 60.0


MINUTE = Pace(seconds=60.0, kill_s=5.0, swap_s=12.0, deadline_ms=30_000.0, round_s=10.0)


@dataclasses.dataclass
class Outcome:
    """What became of all requests, and what was done to the server."""

    requests: int = 0
    failed_with_budget: int = 0
    refused: int = 0
    late: int = 0
    killed: int = 0
    swapped: int = 0
    rate: float = 0.0
    p99_ms: float = 0.0

    def add(self, found: LoadResult) -> None:
        """Count one round."""
        gave_out = found.statuses.get("503", 0)
        self.requests += found.offered
        self.failed_with_budget += found.errors + gave_out
        self.refused += found.refused - gave_out
        self.late += found.ok - found.in_deadline


class Harm:
    """Kills workers and moves the alias, each in its time, until the block ends."""

    def __init__(self, server: Started, packages: dict[str, str], home: pathlib.Path, pace: Pace) -> None:
        self.killed = self.swapped = 0
        self.trouble: list[BaseException] = []
        self._server, self._packages, self._home, self._pace = server, packages, home, pace
        self._over = threading.Event()

    @contextlib.contextmanager
    def going_on(self) -> Iterator["Harm"]:
        threads = [threading.Thread(target=self._guarded, args=(what,)) for what in (self._kill, self._swap)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._over.set()
            for thread in threads:
                thread.join()

    def _guarded(self, what: Callable[[], None]) -> None:
        try:
            what()
        except BaseException as error:  # noqa: BLE001 - raised in the main thread, after its round
            self.trouble.append(error)

    def _kill(self) -> None:
        while not self._over.wait(self._pace.kill_s):
            while (
                self._loaded() < NUM_WORKERS
            ):  # else, on a slow machine, they are killed faster than they load
                if self._over.wait(0.1):
                    return
            with contextlib.suppress(ProcessLookupError):
                os.kill(busiest(self._workers()), signal.SIGKILL)
                self.killed += 1

    def _swap(self) -> None:
        with open_store(f"sqlite:///{self._home / 'store.db'}") as store:
            while not self._over.wait(self._pace.swap_s):
                other = next(version for version in self._packages if version != self._version())
                store.set_alias(NAME, ALIAS, int(other), why="soak")
                while self._version() != other:
                    if self._over.wait(0.1):
                        return
                self.swapped += 1

    def _loaded(self) -> float:
        with urllib.request.urlopen(self._server.url + "/metrics", timeout=60) as answer:
            lines = answer.read().decode().splitlines()
        return float(next(line for line in lines if line.startswith("tradewind_workers ")).split()[1])

    def _version(self) -> str:
        with urllib.request.urlopen(self._server.url + "/v2/models/ranker", timeout=60) as answer:
            (version,) = json.load(answer)["versions"]
        return str(version)

    def _workers(self) -> list[str]:
        """The processes of the version that serves: a version that is being loaded is none of ours to kill."""
        package = self._packages[self._version()]
        children = _read(f"{self._server.pid}/task/{self._server.pid}/children").split()
        return [child for child in children if package in _read(f"{child}/cmdline").split("\0")]


def soak(pace: Pace, home: pathlib.Path) -> Outcome:
    """Harm a server under load. Raises RuntimeError where it cannot be started."""
    packages = published(home)
    body, headers = tensors("ranker")
    outcome, latencies = Outcome(), Histogram()
    spec = {"model": f"{NAME}@{ALIAS}", "slo": {"latency_ms": pace.deadline_ms}}
    with started(spec, home) as server:
        url = f"{server.url}/v2/models/ranker/infer"
        capacity = find_capacity(
            url, [body], headers=headers, deadline_ms=pace.deadline_ms, concurrencies=BUSY
        )
        outcome.rate = SHARE * capacity.per_s
        say(f"capacity {capacity.per_s:.0f}/s")
        with Harm(server, packages, home, pace).going_on() as harm:
            begun, rounds = time.monotonic(), 0
            while time.monotonic() - begun < pace.seconds or not (harm.killed and harm.swapped):
                if harm.trouble:
                    raise harm.trouble[0]
                found = execute(plan(url, headers, outcome.rate, rounds, pace), [body])
                outcome.add(found)
                latencies.merge(Histogram.from_dict(found.histogram))
                rounds += 1
                outcome.killed, outcome.swapped = harm.killed, harm.swapped
                outcome.p99_ms = round(latencies.quantile(0.99), 3)
                say(f"round {rounds}  p99 {found.p99_ms:.0f} ms, {found.statuses}  so far: {outcome}")
        if harm.trouble:
            raise harm.trouble[0]
    return outcome


def plan(url: str, headers: dict[str, str], rate: float, seed: int, pace: Pace) -> LoadPlan:
    """One round of load; whoever gets no answer is waited for past the deadline, and then counted as failed."""
    return LoadPlan(
        url=url,
        rate=rate,
        duration_s=pace.round_s,
        deadline_ms=pace.deadline_ms,
        headers=headers,
        seed=seed,
        timeout_s=60.0 + pace.deadline_ms / 1e3,
        connections=4096,
    )


def published(home: pathlib.Path) -> dict[str, str]:
    """Publish two versions of the ranker and put the first into production; return their folders by version."""
    program = exported("ranker")
    os.environ["TRADEWIND_HOME"] = str(home)
    packages = {}
    with open_store() as store:
        for number in (1, 2):
            folder = home / f"package-{number}"
            write_package(
                folder,
                name="ranker",
                programs={"ranker": program},
                outputs={"ranker": ["y"]},
                config={"n": number},
            )
            found = publish(store, folder, NAME)
            packages[str(found.version)] = found.path
        store.set_alias(NAME, ALIAS, 1, why="soak")
    return packages


def busiest(pids: list[str]) -> int:
    """The process that used most of a core in the last moment."""
    before = {pid: ticks(pid) for pid in pids}
    time.sleep(0.2)
    return int(max(pids, key=lambda pid: ticks(pid) - before[pid]))


def ticks(pid: str) -> int:
    """CPU time of a process; 0 of one that has ended."""
    fields = _read(f"{pid}/stat").rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12]) if fields else 0


def _read(path: str) -> str:
    try:
        return (pathlib.Path("/proc") / path).read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def main() -> None:
    """Soak for half an hour, or a minute; print the outcome as the last line."""
    parser = argparse.ArgumentParser(prog="make soak", description=main.__doc__)
    parser.add_argument("--minute", action="store_true", help="the one-minute form")
    pace = MINUTE if parser.parse_args().minute else Pace()
    with tempfile.TemporaryDirectory(prefix="tw") as home:
        outcome = soak(pace, pathlib.Path(home))
    print("RESULT " + json.dumps(dataclasses.asdict(outcome)))
    raise SystemExit(1 if outcome.failed_with_budget else 0)


if __name__ == "__main__":
    main()
