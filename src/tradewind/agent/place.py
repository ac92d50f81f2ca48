"""Where each rank runs: hosts in their order, and on each of them its local ranks."""

from collections.abc import Sequence

import msgspec


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """One rank's place in one attempt: torchrun's environment in numbers."""

    attempt: int
    restarts: int
    rank: int
    world: int
    local_rank: int
    local_world: int
    host: int = 0
    """Position of its host among those in use."""
    hosts: int = 1
    address: str = "127.0.0.1"
    """Where rank 0's host is reached."""
    port: int
    peers: tuple[str, ...] = ()
    """Where each host's workers take copies of another host's state, `address:port`, where there are several."""


def spread(capacities: Sequence[int | None], workers: int) -> list[int]:
    """How many workers each host gets, the first hosts filled first; None takes all that are left.

    The sum is below `workers` when there is not enough room.
    """
    counts, left = [], workers
    for capacity in capacities:
        counts.append(left if capacity is None else min(left, capacity))
        left -= counts[-1]
    return counts


def lay_out(
    counts: Sequence[int],
    *,
    attempt: int,
    restarts: int,
    address: str,
    port: int,
    peers: tuple[str, ...] = (),
) -> list[list[Place]]:
    """The places on each host, given how many workers it has; a host without any has no position."""
    world, used = sum(counts), sum(count > 0 for count in counts)
    places: list[list[Place]] = []
    rank = host = 0
    for count in counts:
        places.append(
            [
                Place(
                    attempt=attempt,
                    restarts=restarts,
                    rank=rank + local_rank,
                    world=world,
                    local_rank=local_rank,
                    local_world=count,
                    host=host,
                    hosts=used,
                    address=address,
                    port=port,
                    peers=peers,
                )
                for local_rank in range(count)
            ]
        )
        rank += count
        host += count > 0
    return places
