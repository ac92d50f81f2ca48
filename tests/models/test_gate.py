"""The promotion gate: a paired bootstrap that decides as a plain one would."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from tradewind import models
from tradewind.errors import GateError
from tradewind.models.gate import Gate, judge, paired_bootstrap

Write = Callable[..., models.Package]


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., models.Package]:
    """Write a package without programs, with this evaluation."""

    def evaluated(**values: Any) -> models.Package:
        folder = tmp_path_factory.mktemp("package") / "p"
        evaluation = {name: torch.as_tensor(v) for name, v in values.items()}
        return models.write_package(folder, name="small", programs={}, evaluation=evaluation)

    return evaluated


@pytest.mark.parametrize("kind", ["few values", "all different", "one user"])
def test_the_interval_is_that_of_plain_resampling(kind: str) -> None:
    """Drawing equal users together gives the interval of drawing users one by one."""
    generator = np.random.default_rng(5)
    differences = {
        "few values": generator.choice([-0.3, 0.0, 0.1, 1.0], 400),
        "all different": generator.normal(0.01, 0.3, 400),
        "one user": np.array([0.25]),
    }[kind]
    low, high = paired_bootstrap(differences, resamples=8000)
    plain = [
        differences[generator.integers(0, len(differences), len(differences))].mean() for _ in range(8000)
    ]
    np.testing.assert_allclose([low, high], np.quantile(plain, [0.025, 0.975]), atol=4e-3)


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    """Over 300 draws of 200 users, the 90% interval holds the true mean in 85 to 95% of them."""
    generator = np.random.default_rng(0)
    held = 0
    for seed in range(300):
        low, high = paired_bootstrap(generator.normal(0.05, 1, 200), confidence=0.9, resamples=400, seed=seed)
        held += low <= 0.05 <= high
    assert 0.85 <= held / 300 <= 0.95


def test_it_gives_the_same_answer_for_the_same_seed() -> None:
    """A gate that is asked twice says the same."""
    differences = np.random.default_rng(0).normal(size=100)
    assert paired_bootstrap(differences, seed=3) == paired_bootstrap(differences, seed=3)
    assert paired_bootstrap(differences, seed=3) != paired_bootstrap(differences, seed=4)


@pytest.mark.parametrize(
    ("shift", "noise", "margin", "passed"),
    [
        (0.0, 0.0, 0.0, True),  # the same values
        (0.05, 0.0, 0.002, True),  # better
        (-0.001, 0.0, 0.002, True),  # worse, by less than the margin
        (-0.003, 0.0, 0.002, False),  # worse, by more
        (0.0, 0.5, 0.002, False),  # too noisy to say
        (0.0, 0.5, 0.1, True),  # as noisy, with a margin that allows for it
    ],
)
def test_not_worse_by_more_than_the_margin_passes(
    shift: float, noise: float, margin: float, passed: bool, evaluated: Callable[..., models.Package]
) -> None:
    """The lower end of the interval is held against the margin."""
    generator = np.random.default_rng(1)
    base = generator.random(1000)
    jitter = generator.normal(0, noise, 1000) if noise else np.zeros(1000)
    candidate = evaluated(ndcg=base + shift + jitter - jitter.mean())
    (verdict,) = judge(candidate, evaluated(ndcg=base), Gate(metrics={"ndcg": margin}))
    assert verdict.passed is passed
    assert verdict.difference == pytest.approx(shift, abs=1e-9)
    assert verdict.low <= verdict.difference <= verdict.high


def test_users_are_paired_by_id(evaluated: Callable[..., models.Package]) -> None:
    """The order in which users were evaluated does not matter where ids were kept."""
    values, order = torch.rand(50), torch.randperm(50)
    ours = evaluated(ndcg=values[order], user=torch.arange(50)[order])
    theirs = evaluated(ndcg=values, user=torch.arange(50))
    (verdict,) = judge(ours, theirs, Gate())
    assert (verdict.low, verdict.high) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("ours", "theirs", "gate", "message"),
    [
        ({"a": [1.0]}, {}, Gate(), "no per-user evaluation"),
        ({}, {"a": [1.0]}, Gate(), "the candidate has no per-user 'a'; it has none"),
        ({"a": [1.0]}, {"b": [1.0]}, Gate(metrics={"a": 0.0}), "production has no per-user 'a'; it has b"),
        ({"a": [1.0, 2.0]}, {"a": [1.0]}, Gate(), "evaluate both on the same"),
        ({"a": [float("nan")]}, {"a": [1.0]}, Gate(), "no finite value"),
        ({"a": [1.0], "user": [1]}, {"a": [1.0], "user": [2]}, Gate(), "different users"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    ours: dict[str, Any],
    theirs: dict[str, Any],
    gate: Gate,
    message: str,
    evaluated: Callable[..., models.Package],
) -> None:
    """Missing metrics, other users and NaN never pass for a comparison."""
    with pytest.raises(GateError, match=message):
        judge(evaluated(**ours), evaluated(**theirs), gate)


def test_every_metric_of_production_is_asked_for_by_default(evaluated: Callable[..., models.Package]) -> None:
    """One metric that got worse is enough to refuse."""
    base = torch.rand(300)
    verdicts = judge(evaluated(a=base, b=base - 0.1, c=base), evaluated(a=base, b=base), Gate())
    assert [(v.metric, v.passed) for v in verdicts] == [("a", True), ("b", False)]
