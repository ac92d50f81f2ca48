"""The oracle: what counts as the same, and when the same is worth having."""

import itertools

import pytest
import torch

from tradewind.models.manifest import Signature, Tensor
from tradewind.models.program import Program
from tradewind.serve.trial import Trial

NAN, INF = float("nan"), float("inf")


class Fixed(torch.nn.Module):
    """Gives the same outputs whatever it is given."""

    def __init__(self, *outputs: torch.Tensor) -> None:
        super().__init__()
        self.outputs = list(outputs)

    def forward(self, *inputs):
        return self.outputs


class Other:
    """Stands where a compiled program does; takes everything."""

    def __init__(self, *outputs: torch.Tensor) -> None:
        self.outputs = list(outputs)

    def fits(self, inputs):
        return True

    def __call__(self, inputs):
        return self.outputs


def tried(expected: list[torch.Tensor], found: list[torch.Tensor], seconds=(2.0, 1.0), given: bool = False):
    """What a trial finds, by a clock by which eager and compiled take so long."""
    outputs = tuple(Tensor(name=f"y{i}", dtype="FP32", shape=(-1,)) for i in range(len(expected)))
    eager = Program("p", Fixed(*expected), Signature(inputs=(), outputs=outputs))
    ticks = itertools.accumulate(
        itertools.chain.from_iterable((0.0, spent) for spent in itertools.cycle(seconds))
    )
    trial = Trial(eager, Other(*found), ticks.__next__, 3)
    trial.rows = 4
    assert trial(()) is not None
    return trial.verdict(given)


@pytest.mark.parametrize(
    ("expected", "found"),
    [
        ([1.0, -2.0], [1.00001, -2.00001]),
        ([1000.0, 1e-5], [1000.0, 2e-5]),
        ([NAN, INF, -INF, 1.0], [NAN, INF, -INF, 1.0]),
        ([0.0, 0.0], [0.0, 0.0]),
        ([], []),
    ],
    ids=["rounding", "rest of a larger sum", "NaN and infinity", "zeros", "empty"],
)
def test_the_same_but_for_rounding_is_the_same(expected, found):
    """Of values near zero, that is as near as their neighbours' size allows."""
    about = tried([torch.tensor(expected)], [torch.tensor(found)])
    assert (about.compiled, about.why) == (True, "")
    assert about.difference <= 1e-4


@pytest.mark.parametrize(
    ("expected", "found"),
    [
        ([1.0, 2.0], [1.001, 2.0]),
        ([1.0, 2.0], [1.0, NAN]),
        ([1.0, NAN], [1.0, 2.0]),
        ([INF, 1.0], [-INF, 1.0]),
        ([INF, 1.0], [NAN, 1.0]),
        ([1.0, 2.0], [1.0, INF]),
        ([0.0, 0.0], [0.0, 1e-3]),
        ([1e6, *[1.0] * 10_000], [1e6, *[1.5] * 10_000]),
    ],
)
def test_anything_else_is_refused_by_name(expected, found):
    """One large value does not excuse the others."""
    about = tried([torch.ones(2), torch.tensor(expected)], [torch.ones(2), torch.tensor(found)])
    assert not about.compiled
    assert about.why.startswith("output 'y1' differs from eager's by")


@pytest.mark.parametrize(
    "found",
    [torch.ones(3), torch.ones(2, 1), torch.ones(2, dtype=torch.float64)],
    ids=["size", "rank", "dtype"],
)
def test_outputs_of_another_form_are_refused(found):
    """They would be given to clients as they are."""
    assert "and not as eager's" in tried([torch.ones(2)], [found]).why


@pytest.mark.parametrize(
    ("dtype", "close", "far"), [(torch.float16, 1.004, 1.05), (torch.bfloat16, 1.01, 1.2)]
)
def test_short_types_may_differ_by_their_rounding(dtype, close, far):
    """They have fewer digits to agree in."""
    one = [torch.ones(4, dtype=dtype)]
    assert tried(one, [torch.full((4,), close, dtype=dtype)]).compiled
    assert not tried(one, [torch.full((4,), far, dtype=dtype)]).compiled


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.uint8])
def test_whole_numbers_are_equal_or_not(dtype):
    """There is nothing to round."""
    yes, no = torch.tensor([1, 0, 1]).to(dtype), torch.tensor([1, 1, 1]).to(dtype)
    assert tried([yes], [yes.clone()]).compiled
    assert "differs" in tried([yes], [no]).why


@pytest.mark.parametrize(
    ("seconds", "used"), [((2.0, 1.0), True), ((1.0, 0.97), True), ((1.0, 0.99), False), ((1.0, 3.0), False)]
)
def test_it_is_used_where_it_is_faster(seconds, used):
    """And not for what a median wavers by; another worker that has measured decides for this one."""
    one = [torch.ones(2)]
    about = tried(one, one, seconds)
    assert about.compiled == used
    assert (about.timings[0].rows, about.timings[0].eager_s, about.timings[0].compiled_s) == (
        4,
        *map(pytest.approx, seconds),
    )
    assert used or about.why.startswith("not faster")
    assert tried(one, one, seconds, given=True).compiled
    assert not tried(one, [torch.zeros(2)], seconds, given=True).compiled


def test_what_was_never_called_is_not_used():
    """No sample had sizes that it was compiled for."""
    eager = Program("p", Fixed(torch.ones(1)), Signature(inputs=(), outputs=()))
    about = Trial(eager, Other(), float, 3).verdict(given=False)
    assert (about.compiled, about.difference) == (False, None)
    assert "no sample" in about.why
