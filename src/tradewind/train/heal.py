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
from tradewind.train.checkpoint import Memory
from tradewind.train.checkpoint.copies import Version
from tradewind.train.checkpoint.mirror import Mirror, Ring, held
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

    own: list[set[Version]]
    """By host, what it has of itself, by the ranks that it has now."""
    copies: list[set[Version]]
    """By host, what the next one has of it."""

    @classmethod
    def ask(cls, memory: Memory, mirror: Mirror, peers: Peers) -> "_Hosts":
        """Every worker asks, and gets the same answer."""
        offers = peers.gather(
            {"host": mirror.ring.own, "own": _listed(memory.versions()), "held": _listed(held(memory.folder))}
        )
        count = len(mirror.ring.addresses)
        ranks: list[list[int]] = [[] for _ in range(count)]
        for rank, offer in enumerate(offers):
            ranks[offer["host"]].append(rank)
        own: list[set[Version]] = [set() for _ in range(count)]
        copies: list[set[Version]] = [set() for _ in range(count)]
        for offer in offers:
            host, before = offer["host"], (offer["host"] - 1) % count
            own[host] |= _of(offer["own"], ranks[host])
            copies[before] |= _of(offer["held"], ranks[before])
        return cls(own, copies)

    def newest(self) -> Version | None:
        """The newest version that every host has, or can get back."""
        return _newest(have | copy for have, copy in zip(self.own, self.copies, strict=True))

    def newest_twice(self) -> Version | None:
        """The newest version that every host has, and could get back if it were lost."""
        return _newest(have & copy for have, copy in zip(self.own, self.copies, strict=True))


def _listed(versions: dict[Version, list[int]]) -> list[Any]:
    return [[*version, ranks] for version, ranks in versions.items()]


def _of(offered: Iterable[Any], ranks: list[int]) -> set[Version]:
    return {(step, generation) for step, generation, whose in offered if whose == ranks}


def _newest(sets: Iterable[set[Version]]) -> Version | None:
    return max(set.intersection(*sets), default=None)


def heal(root: Path, memory: Memory, mirror: Mirror, peers: Peers) -> tuple[Version | None, str | None]:
    """Fetch what this host lost, if the newest step that all hosts can have is newer than the disk's.

    What was fetched, and why that failed; every worker calls it.
    """
    hosts = _Hosts.ask(memory, mirror, peers)
    newest, twice = hosts.newest(), hosts.newest_twice()
    if twice is not None:
        mirror.hold(twice[0])
    on_disk = peers.from_first(max(checkpoint.steps(root), default=-1))
    if newest is None or newest[0] <= on_disk or all(newest in have for have in hosts.own):
        return None, None
    fetched, why = None, None
    if newest not in hosts.own[mirror.ring.own]:
        try:
            mirror.fetch(newest)
            fetched = newest
        except TradewindError as error:
            why = str(error)
    peers.gather(why)  # Only now has every worker of a host got its part.
    return fetched, why
