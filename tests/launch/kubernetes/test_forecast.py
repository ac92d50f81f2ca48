"""What a run costs and how long runs like it waited."""

import pytest

from tests.launch.kubernetes.builders import context, request
from tradewind.launch.kubernetes.forecast import price_per_hour, waited
from tradewind.launch.kubernetes.request import Request
from tradewind.spec import Resources, RunSpec
from tradewind.store import Run


def asking(gpus: int = 0, gpu_type: str | None = None, **prices: float) -> Request:
    """Two hosts with two workers each, of 4 CPUs and 8 GiB."""
    resources = Resources(gpus=gpus, gpu_type=gpu_type, cpus=4, memory_gib=8)
    spec = RunSpec(script="train.py", hosts=2, workers=4, resources=resources)
    return request(
        spec, on=context(prices={name.replace("__", "/"): price for name, price in prices.items()})
    )


@pytest.mark.parametrize(
    ("asked", "price"),
    [
        (asking(), None),
        (asking(cpu=0.05), 0.05 * 16),
        (asking(cpu=0.05, memory=0.01), 0.05 * 16 + 0.01 * 32),
        (asking(memory=0.01), None),
        (asking(gpus=2, **{"nvidia.com/gpu": 2.0}), 2.0 * 8),
        (asking(gpus=2, cpu=0.05, **{"nvidia.com/gpu": 2.0}), 2.0 * 8 + 0.05 * 16),
        (asking(gpus=2, cpu=0.05), None),
        (asking(gpus=2, gpu_type="H100", H100=3.0, **{"nvidia.com/gpu": 2.0}), 3.0 * 8),
        (asking(gpus=2, gpu_type="A100", H100=3.0, **{"nvidia.com/gpu": 2.0}), 2.0 * 8),
    ],
)
def test_prices(asked: Request, price: float | None) -> None:
    """Of all hosts for an hour; unknown when what costs most has no price; a GPU type's own price first."""
    assert price_per_hour(asked) == (None if price is None else pytest.approx(price))


def earlier(number: int, wait_s: float | None, on: str = "k8s", hosts: int = 2, gpus: int = 0) -> Run:
    """A run of this shape that waited so long, or waits still."""
    spec = {"hosts": hosts, "workers": 2 * hosts, "resources": {"gpus": gpus}, "place": {"on": on}}
    started = None if wait_s is None else 100.0 + wait_s
    return Run(
        id=f"{number:012x}",
        name="r",
        created_s=100.0,
        started_s=started,
        spec=spec,
        state="succeeded" if wait_s is not None else "pending",
    )


def test_similar_runs_are_those_of_the_same_shape_in_the_same_place() -> None:
    """Median and 90th percentile of the waits that ended, how many they are, and how many wait now."""
    runs = [earlier(i, wait) for i, wait in enumerate([10, 20, 30, 40, 50, 60, 70, 80, 90, 1000, None])]
    others = [earlier(90, 5, on="k8s:b"), earlier(91, 5, hosts=4), earlier(92, 5, gpus=1)]
    found = waited(asking(), "k8s", [*runs, *others, Run(id="f" * 12, name="here", created_s=1.0)])
    assert found is not None
    assert (found.runs, found.median_s, found.p90_s, found.waiting) == (10, 55, 90, 1)
    assert waited(asking(gpus=8), "k8s", runs) is None
