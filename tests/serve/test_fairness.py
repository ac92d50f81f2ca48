"""Who gives way to whom."""

import pytest

from tradewind.serve.fairness import Standing


def standing(**weights: float) -> Standing:
    return Standing(1.0, lambda tenant: weights.get(tenant, 1.0))


def test_the_tenant_furthest_ahead_gives_way_and_to_no_one_else():
    """Nobody does to it, and not for a request after which the other would be ahead."""
    made = standing()
    for _ in range(3):
        made.add("a", 0.2)
    made.add("b", 0.2)
    assert made.gives_way("b", 0.1) == "a"
    assert made.gives_way("a", 0.1) is None
    assert made.gives_way("b", 2.0) is None
    assert made.gives_way("b", 0.1, {"a": 10.0}) is None


def test_an_empty_queue_gives_nothing():
    """There is nobody to give way, whatever was run before."""
    made = standing()
    made.add("a", 0.2)
    made.remove("a")
    assert made.gives_way("b", 0.1) is None


def test_what_ran_counts_and_what_did_not_does_not():
    """A request that left or was given up costs its tenant nothing."""
    made = standing()
    for tenant in "aabb":
        made.add(tenant, 0.2)
    before = made.queued
    made.remove("a")
    made.remove("b", back_s=0.2)
    assert made.queued["a"] == pytest.approx(before["a"])
    assert made.queued["b"] == pytest.approx(before["b"] - 0.2)


def test_a_weight_makes_the_same_work_count_less():
    """Three times the weight, a third of the virtual time."""
    made = standing(large=3.0)
    for tenant in ("small", "large"):
        made.add(tenant, 0.3)
    before = made.queued
    for tenant in ("large", "small"):
        made.add(tenant, 0.3)
    assert made.queued["small"] - before["small"] == pytest.approx(0.3)
    assert made.queued["large"] - before["large"] == pytest.approx(0.1)
    for _ in range(20):
        made.add("large", 0.3)
    assert made.gives_way("small", 0.3) == "large"
    assert made.gives_way("large", 0.3) is None


def test_nobody_saves_up_more_than_the_bank_holds():
    """One that was away is one second behind, not hours."""
    made = standing()
    made.add("away", 0.1)
    made.remove("away")
    for _ in range(100):
        made.add("here", 1.0)
    assert made.virtual_s("away") == pytest.approx(made.queued["here"] - 1.0)
    assert made.virtual_s("new") == pytest.approx(made.queued["here"] - 1.0)


def test_one_that_waits_falls_no_further_behind_than_the_bank():
    """Whatever others were given room for since."""
    made = standing()
    made.add("waits", 0.1)
    for _ in range(5):
        made.add("here", 1.0)
    made.add("waits", 0.1)
    assert made.queued["waits"] == pytest.approx(made.queued["here"] - 1.0 + 0.1)
