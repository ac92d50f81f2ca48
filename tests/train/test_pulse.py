"""How often workers tell each other how they are."""

import pytest

from tests.train import states
from tradewind.train.distributed import Peers
from tradewind.train.pulse import Pulse, apart


@pytest.mark.parametrize(
    ("step_s", "steps"), [(None, 1), (30.0, 1), (0.5, 1), (0.1, 5), (0.0625, 8), (0.001, 8)]
)
def test_pulses_are_half_a_second_apart_and_eight_steps_at_most(step_s: float | None, steps: int) -> None:
    """Long steps have one each, and before a step is timed every one has."""
    assert apart(step_s) == steps


def test_what_was_said_counts_until_something_else_is() -> None:
    """The largest of what all said, from the first reading after a beat on."""

    def talk(peers: Peers) -> list[list[int]]:
        pulse = Pulse(peers, [0, 1])
        heard = [pulse.read()]
        for said in ([peers.rank, 5 - peers.rank], [0, peers.rank]):
            pulse.beat(said)
            assert pulse.is_under_way
            heard += [pulse.read(), pulse.read()]
            assert not pulse.is_under_way
        return heard

    assert states.on_all(3, talk) == [[[0, 1], [2, 5], [2, 5], [0, 2], [0, 2]]] * 3
