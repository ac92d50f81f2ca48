"""`plan` beside the real scheduler, on random clusters with random requests."""

import pytest

from tests.launch.kubernetes.random_clusters import decide_all, draw
from tests.services.kubernetes import ControlPlane

SEEDS = range(10)


def test_a_seed_is_a_case() -> None:
    """The same seed draws the same cluster and request."""
    assert draw(7) == draw(7)
    assert draw(7) != draw(8)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_plan_and_the_scheduler_agree(kwok: ControlPlane) -> None:
    """Never, later or now: what `plan` said of a cluster is what its scheduler did, before and after it was emptied."""
    pytest.importorskip("lightkube", reason="KUBERNETES IS NOT TESTED: lightkube is not installed")
    decided = decide_all(kwok, SEEDS)
    wrong = [f"seed {each.drawn.seed}: {each.wrong}: {each.said.because}" for each in decided if each.wrong]
    assert wrong == []
    assert {each.said.verdict for each in decided} == {"fits now", "fits later", "can never fit"}
