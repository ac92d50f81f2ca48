"""`why` against the labelled scenarios: what was injected must be the first cause named."""

import collections
from collections.abc import Sequence

import pytest

from tests.launch.why.scenarios import kubelet
from tests.launch.why.scenarios.play import BY_THE_CLUSTER, Played, play_all, play_recorded
from tests.services.kubernetes import ControlPlane
from tradewind.launch.why import Code, decode_dump, explain

ONLY_LOCAL = {Code.HANG, Code.STOPPED}
WITHOUT_SCENARIO = {Code.KILLED}
"""Held by tests of their own."""


def wrong(played: Sequence[Played]) -> list[str]:
    """The scenarios whose first cause is not what was injected."""
    found = [(each, explain(decode_dump(each.dump, each.name), "job/train").causes[0]) for each in played]
    return [
        f"{each.name}: {each.label}, not {c.code} ({c.text})" for each, c in found if each.label != c.code
    ]


def test_scenarios_written_by_hand() -> None:
    """Kueue's objects, and dumps that hold a part of the cluster only, are explained as labelled."""
    assert wrong(play_recorded()) == []


def test_every_code_has_a_scenario() -> None:
    """A code that no scenario injects would be a claim without a check."""
    labels = {*BY_THE_CLUSTER.values(), *kubelet.SCENARIOS.values()}
    assert {str(code) for code in set(Code) - ONLY_LOCAL - WITHOUT_SCENARIO} == labels


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_scenarios_on_the_control_plane(kwok: ControlPlane) -> None:
    """At least 95% of the scenarios that a real control plane produced are explained as labelled."""
    played = play_all(kwok)
    by_source = collections.Counter(each.source for each in played)
    assert by_source["cluster"] >= 40
    assert len(played) >= 60
    misses = wrong(played)
    assert len(misses) <= len(played) * 0.05, "\n".join(misses)
