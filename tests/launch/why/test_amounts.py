"""Quantities, and what a pod asks for."""

import pytest

from tradewind.errors import SpecError
from tradewind.launch.why.amounts import amount, lacking, need_of
from tradewind.launch.why.pods import PodSpec
from tradewind.launch.why.typed import convert


@pytest.mark.parametrize(
    ("text", "value"),
    [("8", 8), ("500m", 0.5), ("4Gi", 2**32), ("1e3", 1000), ("1.5", 1.5), (2, 2), ("-1", -1), ("100k", 1e5), ("5E", 5e18)],
)  # fmt: skip
def test_quantities(text: str | int, value: float) -> None:
    """Every way in which Kubernetes prints a quantity is read."""
    assert amount(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "Gi", "4gi", "nan", "inf", "1e999", "0x8", "8 8", 10**200])
def test_what_is_no_quantity_is_refused(text: str | int) -> None:
    """Anything else is an error that shows it."""
    with pytest.raises(SpecError, match="is none that Kubernetes prints"):
        amount(text)


def test_a_pod_asks_for_its_containers_or_its_largest_init_container() -> None:
    """Containers are added up, init containers count one at a time, sidecars always, limits where no request is."""
    spec = convert(
        {
            "containers": [
                {"resources": {"requests": {"cpu": "2"}, "limits": {"nvidia.com/gpu": "4"}}},
                {"resources": {"requests": {"cpu": "500m"}}},
            ],
            "initContainers": [
                {"resources": {"requests": {"cpu": "1", "memory": "8Gi"}}},
                {"restartPolicy": "Always", "resources": {"requests": {"cpu": "1"}}},
            ],
            "overhead": {"cpu": "100m"},
        },
        PodSpec,
    )
    expected = {"cpu": 3.6, "nvidia.com/gpu": 4, "memory": 2**33, "pods": 1}
    assert need_of(spec) == pytest.approx(expected)


def test_thousandths_that_add_up_exactly_are_enough() -> None:
    """Ten tenths of a CPU fit into one CPU in spite of how floats add."""
    assert lacking({"cpu": sum([0.1] * 10)}, {"cpu": 1.0}) == []
    assert lacking({"cpu": 1.001}, {"cpu": 1.0}) == ["cpu"]
