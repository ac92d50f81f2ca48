"""Programs on a device: what they are given, what comes back, what is captured. The device is the CPU, taken for one."""

import contextlib
from collections.abc import Callable, Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from tradewind.serve.device import ALIGN_BYTES, Arena, Graph, Layout, Naive, OnDevice, fill


class Recorder(Naive):
    """A device that notes what it was asked for, and fails where it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.taken: list[int] = []
        self.captures = self.replays = self.batches = self.ended = 0
        self.fault: Callable[[list[torch.Tensor]], None] = lambda outputs: None
        """Done to what each replay leaves."""

    def host(self, nbytes: int) -> torch.Tensor:
        self.taken.append(nbytes)
        return super().host(nbytes).fill_(0xFF)  # NaN in every float: what is not written is seen

    def memory(self, nbytes: int) -> torch.Tensor:
        self.taken.append(nbytes)
        return super().memory(nbytes).fill_(0xFF)

    @contextlib.contextmanager
    def batch(self) -> Iterator[None]:
        self.batches += 1
        try:
            yield
        finally:
            self.ended += 1

    def capture(self, run: Callable[[], list[torch.Tensor]]) -> Graph:
        self.captures += 1
        graph = super().capture(run)

        def replay() -> None:
            self.replays += 1
            graph.replay()
            self.fault(graph.outputs)

        return Graph(replay, graph.outputs)


def score(query: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
    """A ranker of rows [B, 4] and positions [B, K]."""
    return query.sum(1, keepdim=True) * 2.0 + items


def batch(rows: int, width: int = 3, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, 4, generator=generator), torch.randint(0, 9, (rows, width), generator=generator)


@pytest.fixture
def device() -> Recorder:
    return Recorder()


@settings(deadline=None)
@given(st.lists(st.integers(1, 8), min_size=1, max_size=12))
def test_answers_are_the_program_s_whatever_came_before(sizes):
    """Batches of any size one after another, captured as they come: nothing is left of an earlier or a filled-up row."""
    device = Recorder()
    program = OnDevice("score", score, device, max_rows=6)
    for seed, rows in enumerate(sizes):
        inputs = batch(rows, seed=seed)
        found = program(*inputs)
        assert torch.equal(found, score(*inputs))
        assert found.shape == (rows, 3)


def test_a_batch_is_filled_up_to_the_next_size(device):
    """Powers of two, and the largest: seven batch sizes are four graphs."""
    seen: list[int] = []

    def program(x: torch.Tensor) -> torch.Tensor:
        seen.append(len(x))
        return x + 1.0

    on_device = OnDevice("add", program, device, max_rows=7)
    for rows in range(1, 8):
        on_device(torch.zeros(rows, 2))
    assert sorted(set(seen)) == [1, 2, 4, 7]
    assert (device.captures, on_device.graphs) == (4, 4)


def test_what_fills_up_a_batch_are_copies_of_its_last_row():
    """The program meets no value that no row has: no NaN, no zero to divide by, no position outside a table."""
    place = torch.full((4, 2), torch.nan)
    fill(place, torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    assert place.tolist() == [[1.0, 2.0], [3.0, 4.0], [3.0, 4.0], [3.0, 4.0]]


def test_a_row_that_is_nan_stays_alone(device):
    """Copies of it are cut off."""
    found = OnDevice("inverse", lambda x: 0.0 / x, device, max_rows=4)(torch.tensor([[1.0], [2.0], [0.0]]))
    assert found[:2].tolist() == [[0.0], [0.0]]
    assert found[2].isnan().all()
    assert len(found) == 3


def test_a_program_that_gives_nan_is_captured_all_the_same(device):
    """A replay that is NaN where the program is says the same."""
    program = OnDevice("log", torch.log, device, max_rows=2)
    assert program(torch.tensor([[-1.0], [1.0]])).isnan().tolist() == [[True], [False]]
    assert program.graphs == 1


def test_each_width_has_its_own_graphs(device):
    """A recommender's levels rank so many candidates each."""
    program = OnDevice("score", score, device, max_rows=2)
    for width in (3, 5, 3, 5):
        assert torch.equal(program(*batch(2, width)), score(*batch(2, width)))
    assert program.graphs == 2


def test_nothing_is_captured_once_the_server_has_started(device):
    """What was captured is used; the rest runs eagerly, and nobody waits for a capture."""
    program = OnDevice("score", score, device, max_rows=4)
    program(*batch(2))
    device.warming, captured, replayed = False, device.captures, device.replays
    for rows in (2, 4):
        assert torch.equal(program(*batch(rows)), score(*batch(rows)))
    assert (device.captures, device.replays) == (captured, replayed + 1)


def test_more_rows_than_the_largest_batch_run_eagerly(device):
    """A request may be larger."""
    program = OnDevice("score", score, device, max_rows=4)
    assert torch.equal(program(*batch(5)), score(*batch(5)))
    assert device.captures == 0


def test_programs_that_are_not_batched_run_eagerly(device):
    """Their sizes may be any, none of which is rows."""
    program = OnDevice("total", lambda x, y: (x.sum(), y.flip(0)), device)
    for size in (3, 0, 8):
        total, turned = program(torch.ones(size), torch.arange(size))
        assert (float(total), turned.tolist()) == (size, list(range(size))[::-1])
    assert device.captures == 0


def test_memory_is_taken_once_for_a_size(device):
    """For eager runs too: pinned memory costs milliseconds to take."""
    graphs, eager = OnDevice("a", score, device, max_rows=4), OnDevice("b", score, device)
    for program in (graphs, eager):
        program(*batch(4))
    taken = list(device.taken)
    for seed in range(5):
        for program in (graphs, eager):
            program(*batch(4, seed=seed))
    assert device.taken == taken


@pytest.mark.parametrize(
    "fault", [lambda outputs: outputs[0].add_(1.0), lambda outputs: outputs[0][-1].fill_(torch.nan)]
)
def test_a_graph_that_says_something_else_than_the_program_is_not_used(device, fault):
    """It is compared at the capture; the answer is the program's, and the log says why."""
    device.fault = fault
    program = OnDevice("score", score, device, max_rows=2)
    with capture_logs() as lines:
        assert torch.equal(program(*batch(2)), score(*batch(2)))
    assert program.graphs == 0
    (line,) = lines
    assert (line["event"], line["program"], line["rows"]) == ("no graph", "score", 2)
    assert line["why"].startswith("output 0 of a replay is not that of the program")


def test_a_graph_that_has_kept_the_values_of_its_capture_is_not_used(device):
    """Two different inputs are compared, so that an answer which is always the same is noticed."""
    first: list[torch.Tensor] = []

    def program(x: torch.Tensor) -> torch.Tensor:
        return x + 1.0

    def stuck(outputs: list[torch.Tensor]) -> None:
        first.append(outputs[0].clone())
        outputs[0].copy_(first[0])

    device.fault = stuck
    on_device = OnDevice("add", program, device, max_rows=2)
    with capture_logs() as lines:
        on_device(torch.zeros(2, 3))
    assert [line["event"] for line in lines] == ["no graph"]


def test_each_comparison_has_come_to_its_end_before_the_next_is_written(device):
    """Copies to a device go on by themselves: those of a capture are batches too, inside the batch that asked for it."""
    program = OnDevice("score", score, device, max_rows=2)
    program(*batch(2))
    assert (device.batches, device.ended) == (3, 3)
    program(*batch(2))
    assert (device.batches, device.ended) == (4, 4)


def test_what_cannot_be_captured_runs_eagerly(device):
    """It is tried once for each size, not with every batch."""

    def refuse(run: Callable[[], list[torch.Tensor]]) -> Graph:
        device.captures += 1
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nmore")

    device.capture = refuse  # type: ignore[method-assign]
    program = OnDevice("score", score, device, max_rows=2)
    with capture_logs() as lines:
        for _ in range(3):
            assert torch.equal(program(*batch(2)), score(*batch(2)))
    assert device.captures == 1
    assert [line["why"] for line in lines] == ["CUDA error: operation not permitted when stream is capturing"]


def test_a_device_that_is_lost_at_a_capture_is_no_reason_to_go_on(device):
    """The worker is to end: nothing works there any more."""

    def die(run: Callable[[], list[torch.Tensor]]) -> Graph:
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    device.capture = die  # type: ignore[method-assign]
    with pytest.raises(torch.AcceleratorError):
        OnDevice("score", score, device, max_rows=2)(*batch(2))


def test_outputs_without_rows_are_not_captured(device):
    """They could not be cut; the program runs eagerly, as it would on the CPU."""
    program = OnDevice("mean", lambda x: x.mean(), device, max_rows=4)
    with capture_logs() as lines:
        assert float(program(torch.tensor([1.0, 2.0, 6.0]))) == 3.0
    assert lines[0]["why"] == "output 0 has shape [], not 4 rows"


def test_a_batch_that_fails_is_ended_too(device):
    """What was on its way into memory that the next batch uses has come to its end; and that one is right."""

    def program(x: torch.Tensor) -> torch.Tensor:
        if x[0, 0] < 0:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return x * 2.0

    device.warming = False
    on_device = OnDevice("double", program, device, max_rows=2)
    with pytest.raises(torch.OutOfMemoryError):
        on_device(torch.tensor([[-1.0]]))
    assert device.ended == device.batches == 1
    assert on_device(torch.tensor([[3.0]])).tolist() == [[6.0]]


DTYPES = (torch.bool, torch.uint8, torch.int64, torch.float16, torch.bfloat16, torch.float32, torch.float64)
SHAPES = st.lists(st.integers(0, 5), max_size=3)


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(DTYPES), SHAPES), min_size=1, max_size=6))
def test_tensors_lie_side_by_side_in_one_piece(given_):
    """Of any type and shape, none and scalars too: aligned, and none in another."""
    tensors = [torch.ones(shape).to(dtype) for dtype, shape in given_]
    layout = Layout.of(tensors)
    flat = torch.zeros(layout.nbytes, dtype=torch.uint8)
    views = layout.views(flat)
    for tensor, view in zip(tensors, views, strict=True):
        view.copy_(tensor)
    assert all(torch.equal(v, t) and v.dtype == t.dtype for v, t in zip(views, tensors, strict=True))
    assert all(start % ALIGN_BYTES == 0 for start in layout.starts)
    used = sum(t.nbytes for t in tensors)
    assert used <= layout.nbytes < used + ALIGN_BYTES * len(tensors)


def test_an_arena_grows_by_doubling():
    """So that a little more each time is not taken anew each time."""
    taken: list[int] = []

    def take(nbytes: int) -> torch.Tensor:
        taken.append(nbytes)
        return torch.empty(nbytes, dtype=torch.uint8)

    arena = Arena(take)
    assert all(arena.room(n).numel() >= n for n in (0, 1, 5, 8, 9, 600, 1000, 3))
    assert taken == [2, 8, 16, 1024]
