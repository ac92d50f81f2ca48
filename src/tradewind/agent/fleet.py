"""One host of a run that has several: `python -P -m tradewind.agent.fleet RUN.json RUN_DIR`.

Every host starts the same command. `TRADEWIND_HOSTS` and `TRADEWIND_HOST` say who they are; host 0 leads and
keeps the store, the others follow it. RUN.json is what a launcher wrote: the run as the store has it. RUN_DIR
holds the run's code in `code/`.
"""

import os
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec

from tradewind import names
from tradewind.agent.host import LocalHost
from tradewind.agent.job import Job, job_of
from tradewind.agent.lock import held
from tradewind.agent.member import Member
from tradewind.agent.roster import Seat
from tradewind.agent.standby import standby_of
from tradewind.agent.supervise import supervise
from tradewind.agent.watch import Signals, held_back
from tradewind.errors import NotFoundError, SpecError
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
        raise SpecError(
            f"{name} is not set; a run on several hosts needs {', '.join(names.AGENT_ENVIRONMENT)}"
        )
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


def lead(run: Run, job: Job, fleet: Fleet) -> int:
    """Supervise the run on all its hosts; the exit code it ends with."""
    door = socket.create_server(("", fleet.agents[0][1]), backlog=len(fleet.agents))
    seat = Seat(index=fleet.index, address=fleet.address, door=door, token=fleet.token)
    with open_store() as store, held_back(), held(job.run_dir):
        try:
            store.run(run.id)
        except NotFoundError:
            store.add_run(run)
        return supervise(job, store, seat=seat).exit_code


def follow(job: Job, fleet: Fleet) -> int:
    """Do what host 0 says until the run is over; the exit code that it says."""
    own = job.run_dir / "hosts" / str(fleet.index)
    own.mkdir(parents=True, exist_ok=True)
    with held_back(), held(own), Signals() as signals, standby_of(job) as standby:
        host = LocalHost(job, standby, index=fleet.index, address=fleet.address, capacity=job.workers)
        member = Member(job, host, fleet.agents[0], fleet.token)
        try:
            return member.serve(signals)
        finally:
            member.close()


def main(described: str, run_dir: str) -> int:
    """Take this host's part in the run."""
    folder = Path(run_dir).absolute()
    run = msgspec.structs.replace(
        msgspec.json.decode(Path(described).read_bytes(), type=Run), dir=str(folder)
    )
    fleet = read_fleet(os.environ)
    job = msgspec.structs.replace(job_of(run), host=fleet.index)
    return lead(run, job, fleet) if fleet.leads else follow(job, fleet)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
