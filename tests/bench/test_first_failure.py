"""The first-failure benchmark: its cases, and how an answer is judged."""

from pathlib import Path

from bench.first_failure import CASES, KINDS, Answer, Case, ask_tradewind, draw


def test_the_cases_are_of_every_kind_and_always_the_same() -> None:
    """200 cases of 2 to 8 ranks, each kind nine times or more, with two ranks that differ."""
    cases = list(draw(CASES, most=8))
    assert cases == list(draw(CASES, most=8))
    assert {case.world for case in cases} == set(range(2, 9))
    assert min(sum(case.kind == kind for case in cases) for kind in KINDS) >= 9
    assert all(case.rank != case.other and max(case.rank, case.other) < case.world for case in cases)


def test_a_wrong_rank_or_another_exception_is_wrong() -> None:
    """An answer names the rank and what happened, as whole words."""
    case = next(case for case in draw(CASES, most=8) if case.kind == "raise")
    right = f"exception: ValueError: {case.mark}: this batch is wrong"
    assert case.is_right(Answer(case.rank, right))
    assert not case.is_right(Answer(case.other, right))
    assert not case.is_right(Answer(None, right))
    assert not case.is_right(Answer(case.rank, "exception: ValueError: something else"))
    assert not case.is_right(Answer(case.rank, right.replace(case.mark, case.mark + "0")))


def test_a_real_failure_is_asked_about_and_named(tmp_path: Path) -> None:
    """One rank of two raises, and logs of the other only say that it is gone; the answer names the first."""
    case = Case(
        kind="raise", world=2, rank=1, step=1, others="wrap", other=0, gap_s=0.0, code=3, mark="injected-0"
    )
    answer = ask_tradewind(case, tmp_path)
    assert case.is_right(answer), answer
