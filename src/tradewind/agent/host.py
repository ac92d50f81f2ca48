"""A host as the supervisor sees it, and the one that it runs on itself."""

import os
import socket
import struct
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Protocol

from tradewind.agent.job import Job, free_port, worker_environment
from tradewind.agent.journal import make_folder
from tradewind.agent.place import Place
from tradewind.agent.standby import Standby
from tradewind.agent.worker import LocalWorker, Worker


class Host(Protocol):
    """Somewhere workers run."""

    index: int
    address: str
    """Where workers of other hosts reach this one."""
    capacity: int | None
    """How many workers it may have; None leaves it to who asks."""

    @property
    def name(self) -> str:
        """What people call it."""

    @property
    def parked(self) -> Mapping[int, Worker]:
        """Workers that wait for the next group, by local rank."""

    def start(self, place: Place) -> Worker:
        """A new worker."""

    def enter(self, place: Place) -> Worker:
        """Let the parked worker of this local rank go on in this place."""

    def release(self, keep: Collection[int]) -> None:
        """Let go of all workers but the parked ones of these local ranks."""

    def ports(self) -> tuple[int, int]:
        """Two free TCP ports: for rank 0 should it be here, and for copies of another host's state."""


class LocalHost:
    """This host: workers are forked from its standby."""

    def __init__(
        self,
        job: Job,
        standby: Standby,
        *,
        index: int = 0,
        address: str = "127.0.0.1",
        capacity: int | None = None,
    ) -> None:
        self.job = job
        self.index = index
        self.address = address
        self.capacity = capacity
        self.workers: dict[int, LocalWorker] = {}
        """By local rank."""
        self._standby = standby

    @property
    def name(self) -> str:
        return f"host {self.index}" if self.capacity is not None else ""

    @property
    def parked(self) -> dict[int, LocalWorker]:
        return {local: worker for local, worker in self.workers.items() if worker.parked}

    def start(self, place: Place) -> LocalWorker:
        worker = self._standby.fork(self.job, place, self._environment(place), self._log(place))
        self.workers[place.local_rank] = worker
        return worker

    def enter(self, place: Place) -> LocalWorker:
        worker = self.workers[place.local_rank]
        worker.enter(place, self._environment(place), self._log(place))
        return worker

    def release(self, keep: Collection[int]) -> None:
        for local in [local for local in self.workers if local not in keep]:
            self.workers.pop(local).discard()

    def ports(self) -> tuple[int, int]:
        return free_port(self.address), free_port(self.address)

    def _log(self, place: Place) -> Path:
        """Where a worker's output goes; the folders of its files are there from now on."""
        log = self.job.log(place.attempt, place.rank)
        make_folder(log)
        make_folder(self.job.journal(place.attempt, place.rank))
        return log

    def _environment(self, place: Place) -> dict[str, str]:
        env = worker_environment(self.job, place, os.environ)
        if place.hosts > 1 and (interface := interface_of(self.address)):
            # Gloo would otherwise listen where the host's name resolves to, which need not be reachable.
            env.setdefault("GLOO_SOCKET_IFNAME", interface)
        return env


def interface_of(address: str) -> str | None:
    """The network interface that has this IPv4 address, if one has."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            if _address_of(probe, name) == address:
                return name
    return None


def _address_of(probe: socket.socket, name: str) -> str | None:
    from fcntl import ioctl

    request = struct.pack("256s", name.encode()[:15])
    try:
        answer = ioctl(probe, 0x8915, request)  # SIOCGIFADDR
    except OSError:
        return None
    return socket.inet_ntoa(answer[20:24])
