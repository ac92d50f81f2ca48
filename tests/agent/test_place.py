"""Where ranks go."""

from hypothesis import given
from hypothesis import strategies as st

from tradewind.agent.place import lay_out, spread

CAPACITIES = st.lists(st.one_of(st.integers(0, 8), st.none()), min_size=1, max_size=6)


@given(CAPACITIES, st.integers(0, 40))
def test_hosts_are_filled_in_order(capacities: list[int | None], workers: int) -> None:
    """No host gets more than it can take, none is left with room while a later one has workers, none too many."""
    counts = spread(capacities, workers)
    room = [workers if capacity is None else capacity for capacity in capacities]
    assert sum(counts) == min(workers, sum(room))
    assert all(count <= limit for count, limit in zip(counts, room, strict=True))
    filled = [count == limit for count, limit in zip(counts, room, strict=True)]
    assert all(filled[: max((i for i, count in enumerate(counts) if count), default=0)])


@given(st.lists(st.integers(0, 5), min_size=1, max_size=6))
def test_every_rank_has_one_place(counts: list[int]) -> None:
    """Ranks are 0 to world - 1 in order of hosts; local ranks begin at 0 on each; idle hosts have no position."""
    places = lay_out(counts, attempt=3, restarts=1, address="10.0.0.1", port=7)
    flat = [place for own in places for place in own]
    assert [place.rank for place in flat] == list(range(sum(counts)))
    assert [[place.local_rank for place in own] for own in places] == [list(range(n)) for n in counts]
    used = [own[0].host for own in places if own]
    assert used == list(range(len(used)))
    for place in flat:
        assert (place.world, place.hosts) == (sum(counts), len(used))
    assert all(place.local_world == n for own, n in zip(places, counts, strict=True) for place in own)
