"""DistributedDataParallel's buckets are sorted before the first step, and nothing else happens."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from tradewind.train.buckets import lay_out_buckets


@pytest.fixture
def group(tmp_path: Path) -> Iterator[None]:
    """A process group of this process alone."""
    dist.init_process_group("gloo", store=dist.FileStore(str(tmp_path / "store"), 1), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Dropout(0.5), nn.Linear(5, 2))


class Exchange:
    """What DistributedDataParallel exchanges: the gradients' shapes in order, and whether all were zero."""

    def __init__(self, ddp: DistributedDataParallel) -> None:
        self.order: list[tuple[int, ...]] = []
        self.zero = True
        ddp.register_comm_hook(None, self._hook)

    def _hook(self, state: object, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
        self.order += [tuple(gradient.shape) for gradient in bucket.gradients()]
        self.zero = self.zero and not bucket.buffer().any()
        done: torch.futures.Future[torch.Tensor] = torch.futures.Future()
        done.set_result(bucket.buffer())
        return done

    def take(self) -> list[tuple[int, ...]]:
        """The order since this was asked last."""
        order, self.order = self.order, []
        return order


def step(ddp: DistributedDataParallel) -> None:
    ddp(torch.randn(4, 3)).sum().backward()


def test_the_first_step_has_the_order_of_all_others(group: None) -> None:
    """Left alone the first exchange has another order than the second; laid out, all have one from the start."""
    ddp = DistributedDataParallel(model())
    exchange = Exchange(ddp)
    step(ddp)
    first = exchange.take()
    step(ddp)
    assert sorted(first) == sorted(second := exchange.take())
    assert first != second
    ddp = DistributedDataParallel(model())
    exchange = Exchange(ddp)
    lay_out_buckets(ddp)
    assert exchange.zero
    assert len(exchange.take()) == 6
    for _ in range(3):
        step(ddp)
        assert exchange.take() == [tuple(p.shape) for p in reversed(list(ddp.parameters()))]


@pytest.mark.parametrize("options", [{}, {"gradient_as_bucket_view": True}, {"find_unused_parameters": True}])
def test_nothing_else_changes(group: None, options: dict[str, bool]) -> None:
    """Parameters, buffers, gradients and random state are as before, even where a parameter is not finite."""
    inner = model()
    inner[0].weight.data[0, 0] = float("nan")  # type: ignore[index,union-attr]
    inner[3].bias.requires_grad_(False)  # type: ignore[index,union-attr]
    ddp = DistributedDataParallel(inner, **options)  # type: ignore[arg-type]
    before = {name: value.clone() for name, value in inner.state_dict().items()}
    random = torch.get_rng_state()
    lay_out_buckets(ddp)
    assert all(
        torch.equal(value, before[name]) or name == "0.weight" for name, value in inner.state_dict().items()
    )
    assert torch.equal(torch.get_rng_state(), random)
    assert all(parameter.grad is None for parameter in inner.parameters())
    assert ddp(torch.ones(4, 3)).shape == (4, 2)


def test_a_compiled_model_keeps_its_program(group: None) -> None:
    """A model compiled inside DistributedDataParallel computes afterwards what it computed before."""
    torch.manual_seed(0)
    inner = nn.Linear(3, 2)
    ddp = DistributedDataParallel(torch.compile(inner, backend="eager"))  # type: ignore[arg-type]
    lay_out_buckets(ddp)
    example = torch.randn(4, 3)
    assert torch.equal(ddp(example), inner(example))


class HalfUsed(nn.Module):
    """A model that never uses one of its layers."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.spare = nn.Linear(3, 2), nn.Linear(3, 2)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return self.used(batch)  # type: ignore[no-any-return]


def test_other_models_are_left_alone(group: None) -> None:
    """A plain model sees no backward, nor does one whose graph is static, which would learn a wrong pattern."""
    plain = model()
    lay_out_buckets(plain)
    assert "forward" not in vars(plain)
    static = DistributedDataParallel(HalfUsed(), static_graph=True)
    lay_out_buckets(static)
    for _ in range(3):
        step(static)
