"""Extra requests stay a share of the calls."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradewind.client.budget import Budget


@given(st.lists(st.booleans(), max_size=400), st.sampled_from([0.0, 0.05, 0.1, 0.5, 1.0]))
def test_never_more_than_its_share_and_the_reserve(calls: list[bool], share: float) -> None:
    """After n calls at most share * n + reserve extra requests were allowed, however often one was wanted."""
    budget, spent = Budget(share, reserve=3.0), 0
    for number, wanted in enumerate(calls, 1):
        budget.earn()
        while wanted and budget.spend():
            spent += 1
        assert spent <= share * number + 3.0 + 1e-6


def test_what_was_spent_comes_back_with_calls() -> None:
    """Ten calls at a tenth earn one more extra request."""
    budget = Budget(0.1, reserve=1.0)
    assert budget.spend()
    for _ in range(9):
        budget.earn()
        assert not budget.spend()
    budget.earn()
    assert budget.spend()


def test_no_share_allows_nothing() -> None:
    """A share of 0 has no reserve either; a share that is none is refused."""
    assert not Budget(0.0).spend()
    with pytest.raises(ValueError, match="0 to 1"):
        Budget(10.0)
