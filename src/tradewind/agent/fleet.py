"""One host of a run: `python -P -m tradewind.agent.fleet RUN.json RUN_DIR`.

Every host starts the same command. RUN.json is what a launcher wrote of the run, RUN_DIR this host's folder of it,
with its code in `code/` and, as `checkpoints/`, a folder that all hosts share. `TRADEWIND_HOSTS` and
`TRADEWIND_HOST` say who the hosts are, on a run that has several: host 0 leads and keeps the store, the others follow.
"""

import os
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from tradewind import names
from tradewind.agent.echo import Echo
from tradewind.agent.host import LocalHost
from tradewind.agent.job import Job, job_of
from tradewind.agent.lock import held
from tradewind.agent.member import Member
from tradewind.agent.roster import Seat
from tradewind.agent.standby import standby_of
from tradewind.agent.supervise import supervise
from tradewind.agent.watch import Signals, held_back
from tradewind.errors import NotFoundError, SpecError
from tradewind.names import ExitCode
from tradewind.store import Run, open_store

_RESOLVE_S = 120.0
"""How long a host's own name may take to resolve: in a cluster its record comes after the host."""


class Fleet(msgspec.Struct, frozen=True, kw_only=True):
    """Who the hosts of a run are, and which of them this one is."""

    agents: tuple[tuple[str, int], ...]
    """Host name and port of each agent."""
    index: int
    address: str
    token: str

    @property
    def leads(self) -> bool:
        """Whether this host leads."""
        return self.index == 0


def read_fleet(env: Mapping[str, str]) -> Fleet:
    """The fleet that the environment describes.

    Raises SpecError, naming the variable that is missing or wrong.
    """
    agents = tuple(_agent(text) for text in _of(env, names.ENV_HOSTS).split(","))
    text = _of(env, names.ENV_HOST)
    if not text.isdecimal() or int(text) >= len(agents):
        raise SpecError(f"{names.ENV_HOST}={text!r} is not one of 0 to {len(agents) - 1}")
    index = int(text)
    token = _of(env, names.ENV_TOKEN)
    if len(token) < 16:
        raise SpecError(f"{names.ENV_TOKEN} is too short to keep anyone out: give it 16 characters or more")
    address = env.get(names.ENV_ADDRESS) or resolve(agents[index][0])
    return Fleet(agents=agents, index=index, address=address, token=token)


def _of(env: Mapping[str, str], name: str) -> str:
    value = env.get(name, "").strip()
    if not value:
        raise SpecError(f"{name} is not set; docs/kubernetes.md says what an agent needs to be told")
    return value


def _agent(text: str) -> tuple[str, int]:
    host, _, port = text.strip().rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise SpecError(f"{names.ENV_HOSTS}: {text!r} is not NAME:PORT")
    return host, int(port)


def resolve(name: str) -> str:
    """The IPv4 address of a host, waited for.

    Raises SpecError when the name does not come to mean anything.
    """
    until = time.monotonic() + _RESOLVE_S
    while True:
        try:
            return socket.gethostbyname(name)
        except OSError as error:
            if time.monotonic() > until:
                raise SpecError(f"{names.ENV_HOSTS}: {name!r} does not resolve: {error}") from error
            time.sleep(0.5)


def lead(run: Run, job: Job, fleet: Fleet | None) -> int:
    """Supervise the run on all its hosts, or on this one alone; the exit code it ends with."""
    seat = Seat() if fleet is None else seat_of(fleet)
    with open_store() as store, held_back(), held(job.run_dir):
        try:
            store.run(run.id)
        except NotFoundError:
            store.add_run(run)
        return supervise(job, store, seat=seat).exit_code


def seat_of(fleet: Fleet) -> Seat:
    """The leader's place, at a door where the other agents call."""
    door = socket.create_server(("", fleet.agents[0][1]), backlog=len(fleet.agents))
    return Seat(index=fleet.index, address=fleet.address, door=door, token=fleet.token)


def follow(job: Job, fleet: Fleet) -> int:
    """Do what host 0 says until the run is over; the exit code that it says."""
    own = job.run_dir / "hosts" / str(fleet.index)
    own.mkdir(parents=True, exist_ok=True)
    with held_back(), held(own), Signals() as signals, standby_of(job) as standby:
        host = LocalHost(job, standby, index=fleet.index, address=fleet.address, capacity=job.per_host)
        member = Member(job, host, fleet.agents[0], fleet.token)
        try:
            return member.serve(signals)
        finally:
            member.close()


class Described(msgspec.Struct, frozen=True, kw_only=True):
    """What a launcher wrote of a run."""

    id: str
    name: str
    spec: dict[str, Any]
    snapshot: str | None = None
    created_s: float | None = None


def described(path: Path, run_dir: Path) -> Run:
    """The run that this file describes, with its folder.

    Raises SpecError when it is no description of a run.
    """
    try:
        found = msgspec.json.decode(path.read_bytes(), type=Described)
    except (OSError, msgspec.DecodeError) as error:
        raise SpecError(f"{path}: does not describe a run: {error}") from error
    return Run(
        id=found.id,
        name=found.name,
        created_s=found.created_s or time.time(),
        spec=found.spec,
        snapshot=found.snapshot,
        dir=str(run_dir),
    )


def main(path: str, run_dir: str) -> int:
    """Take this host's part in the run."""
    run = described(Path(path), Path(run_dir).absolute())
    job = job_of(run)
    with Echo(job.run_dir / names.LOGS_DIR):
        return as_final(take_part(run, job))


def take_part(run: Run, job: Job) -> int:
    """Lead the run or follow its leader; the exit code with which it ended."""
    if job.hosts == 1:
        return lead(run, job, None)
    fleet = read_fleet(os.environ)
    wait_s = float(os.environ.get(names.ENV_START_DEADLINE, job.host_wait_s))
    job = msgspec.structs.replace(job, host=fleet.index, host_wait_s=wait_s)
    return lead(run, job, fleet) if fleet.leads else follow(job, fleet)


def as_final(exit_code: int) -> int:
    """What a host says whose run has failed: all restarts are used up, so whoever started it need not try again.

    A host that ends otherwise than by the run's end (a crash, no leader) never comes here: it may be tried again.
    """
    return ExitCode.DO_NOT_RETRY if exit_code == ExitCode.FAILED else exit_code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
