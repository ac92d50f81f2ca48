"""Bring back what a lost host had staged, from the memory of the host after it."""

import os
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tradewind import names
from tradewind.errors import SpecError, TradewindError
from tradewind.train import checkpoint
from tradewind.train.checkpoint import Memory, copies
from tradewind.train.checkpoint.copies import Of
from tradewind.train.checkpoint.mirror import Mirror, Ring
from tradewind.train.distributed import Peers


def mirror_of_environment(memory: Memory | None, peers: Peers) -> tuple[Mirror | None, str | None]:
    """The mirror among the hosts that the agent named, or why there is none; every worker calls it."""
    ring = _ring(os.environ.get(names.ENV_PEERS, ""), int(os.environ.get("GROUP_RANK", "0")), peers)
    if memory is None or ring is None:
        return None, None
    mirror, why = None, None
    try:
        mirror = Mirror(memory, ring)
    except OSError as error:
        why = f"{ring.addresses[ring.own]} cannot be listened at: {error.strerror}"
    reasons = [reason for reason in peers.gather(why) if reason]
    if reasons and mirror is not None:
        mirror.close()
    return (None, reasons[0]) if reasons else (mirror, None)


def _ring(text: str, own: int, peers: Peers) -> Ring | None:
    addresses = tuple(filter(None, text.split(",")))
    if len(addresses) < 2:
        return None
    wrong = [address for address in addresses if not re.fullmatch(r".+:\d+", address)]
    if wrong or not 0 <= own < len(addresses):
        raise SpecError(
            f"{names.ENV_PEERS} is {text!r} on host {own} (GROUP_RANK): it must be host:port, with commas "
            "between, for every host"
        )
    return Ring(addresses=addresses, own=own, secret=peers.from_first(secrets.token_hex(16)))


@dataclass(frozen=True)
class _Hosts:
    """What the hosts have in memory, of themselves and of each other."""

    world: int
    own: list[dict[Of, list[int]]]
    """By host, what it has of itself, and the ranks that its workers had then."""
    copies: list[dict[Of, list[int]]]
    """By host, the same of what the next one has of it."""
    ranks: list[list[int]]
    """By host, the ranks that its workers have now."""

    @classmethod
    def ask(cls, memory: Memory, ring: Ring, peers: Peers) -> "_Hosts":
        """Every worker asks, and gets the same answer."""
        offers = peers.gather(
            (ring.own, _listed(copies.own(memory.folder)), _listed(copies.held(memory.folder)))
        )
        hosts = range(len(ring.addresses))
        found = cls(peers.world, [{} for _ in hosts], [{} for _ in hosts], [[] for _ in hosts])
        for rank, (host, own, held) in enumerate(offers):
            found.ranks[host].append(rank)
            found.own[host].update({Of(*what): ranks for what, ranks in own})
            found.copies[host - 1].update({Of(*what): ranks for what, ranks in held})
        return found

    def has(self, host: int) -> set[Of]:
        """What a host has of the workers that it has now."""
        return self._as_now(host, self.own)

    def newest(self) -> Of | None:
        """The newest of the workers that there are now that every host has, or can get back."""
        return _newest(self.has(host) | self._as_now(host, self.copies) for host in self._hosts)

    def newest_twice(self) -> Of | None:
        """The newest that every host has, and could get back if it were lost."""
        return _newest(self.has(host) & self._as_now(host, self.copies) for host in self._hosts)

    def newest_of_others(self) -> Of | None:
        """The newest of another number of workers that every host has a part of, and of which nothing is lost."""
        parts = (what for what in set.intersection(*map(set, self.own)) if what.world != self.world)
        return max((what for what in parts if len(self.owners(what)) == what.world), default=None)

    def owners(self, what: Of) -> dict[int, int]:
        """By rank, a host that has its image."""
        copied = {
            rank: (host + 1) % len(self.own)
            for host in self._hosts
            for rank in self.copies[host].get(what, ())
        }
        return copied | {rank: host for host in self._hosts for rank in self.own[host].get(what, ())}

    @property
    def _hosts(self) -> range:
        return range(len(self.own))

    def _as_now(self, host: int, sets: list[dict[Of, list[int]]]) -> set[Of]:
        now = (self.world, self.ranks[host])
        return {what for what, whose in sets[host].items() if (what.world, whose) == now}


def _newest(sets: Iterable[set[Of]]) -> Of | None:
    return max(set.intersection(*sets), default=None)


def _listed(sets: Iterable[copies.Set]) -> list[Any]:
    return [(copies.of(one[0][1]), [header.rank for _, header in one]) for one in sets]


def heal(root: Path, memory: Memory, mirror: Mirror, peers: Peers) -> tuple[int | None, str | None]:
    """Get what this worker needs and only another host has, if that is newer than the disk's; every worker calls it.

    With the workers that there were before that is its own image, where its host was lost. With fewer or more it is
    what its rank had, and where state is cut over the workers the images that its rows are in. Gives the step of what
    was got, and why that failed.
    """
    hosts, own = _Hosts.ask(memory, mirror.ring, peers), mirror.ring.own
    newest, others, twice = hosts.newest(), hosts.newest_of_others(), hosts.newest_twice()
    if twice is not None:
        mirror.hold(twice.step)
    on_disk = peers.from_first(max(checkpoint.steps(root), default=-1))
    what = max(filter(None, (newest, others)), default=None)
    if what is None or what.step <= on_disk or all(what in hosts.has(host) for host in range(len(hosts.own))):
        return None, None
    got, why = None, None
    try:
        if what == newest and what not in hosts.has(own):
            mirror.fetch(what)
            got = what.step
        elif what == others:
            for rank in sorted(memory.lacks(what)):
                mirror.borrow(hosts.owners(what)[rank], rank, what)
                got = what.step
    except TradewindError as error:
        why = str(error)
    peers.gather(why)  # Only now has every worker of a host got its part.
    return got, why
