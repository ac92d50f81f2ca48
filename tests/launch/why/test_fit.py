"""Which nodes a pod may go to: selectors, affinity, taints, as the scheduler means them."""

from typing import Any

import pytest

from tradewind.launch.why.fit import Bar, admits_affinity, bars, matches, selects, tolerates, untolerated
from tradewind.launch.why.kinds import Node, Taint
from tradewind.launch.why.pods import LabelSelector, PodSpec, Requirement, Toleration
from tradewind.launch.why.typed import convert

LABELS = {"zone": "a", "gpus": "8"}


@pytest.mark.parametrize(
    ("key", "operator", "values", "fits"),
    [
        ("zone", "In", ["a", "b"], True),
        ("zone", "In", ["b"], False),
        ("rack", "In", ["r1"], False),
        ("zone", "NotIn", ["b"], True),
        ("rack", "NotIn", ["r1"], True),
        ("zone", "NotIn", ["a"], False),
        ("zone", "Exists", [], True),
        ("rack", "Exists", [], False),
        ("rack", "DoesNotExist", [], True),
        ("gpus", "Gt", ["4"], True),
        ("gpus", "Gt", ["8"], False),
        ("gpus", "Lt", ["9"], True),
        ("zone", "Gt", ["4"], False),
        ("rack", "Lt", ["4"], False),
        ("zone", "Near", ["a"], False),
    ],
)
def test_operators(key: str, operator: str, values: list[str], fits: bool) -> None:
    """Every operator has the meaning that Kubernetes gives it."""
    assert matches(Requirement(key=key, operator=operator, values=tuple(values)), LABELS) is fits


def test_one_term_is_enough_and_an_empty_one_is_none() -> None:
    """Terms are alternatives, expressions of one term must all hold, an empty term matches nothing."""
    node = convert({"kind": "Node", "metadata": {"name": "n", "labels": LABELS}}, Node)
    a, c = ({"key": "zone", "operator": "In", "values": [zone]} for zone in "ac")

    def admitted(*terms: Any) -> bool:
        required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
        return admits_affinity(node, convert({"affinity": {"nodeAffinity": required}}, PodSpec))

    assert admitted({"matchExpressions": [c]}, {"matchExpressions": [a]})
    assert not admitted({"matchExpressions": [a, c]})
    assert not admitted({})
    name = {"key": "metadata.name", "operator": "In", "values": ["n"]}
    assert admitted({"matchFields": [name]})


def test_no_selector_selects_nothing_and_an_empty_one_everything() -> None:
    """As in the API."""
    assert not selects(None, LABELS)
    assert selects(LabelSelector(), LABELS)
    assert not selects(LabelSelector(match_labels={"zone": "b"}), LABELS)


@pytest.mark.parametrize(
    ("toleration", "tolerated"),
    [
        (Toleration(operator="Exists"), True),
        (Toleration(key="team", operator="Exists"), True),
        (Toleration(key="team", value="a"), True),
        (Toleration(key="team", value="a", effect="NoSchedule"), True),
        (Toleration(key="team", value="a", effect="NoExecute"), False),
        (Toleration(key="team", value="b"), False),
        (Toleration(key="other", operator="Exists"), False),
    ],
)
def test_tolerations(toleration: Toleration, tolerated: bool) -> None:
    """Key, value and effect count."""
    assert tolerates(toleration, Taint(key="team", value="a", effect="NoSchedule")) is tolerated


def test_a_taint_that_only_advises_keeps_nobody_off() -> None:
    """PreferNoSchedule is no bar."""
    assert list(untolerated([Taint(key="team", effect="PreferNoSchedule")], ())) == []


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"unschedulable": True}, {Bar.CORDONED}),
        ({"taints": [{"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}]}, {Bar.CORDONED}),
        ({"taints": [{"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"}]}, {Bar.LOST}),
        (
            {"taints": [{"key": "team", "effect": "NoSchedule"}], "unschedulable": True},
            {Bar.TAINT, Bar.CORDONED},
        ),
        ({}, set()),
    ],
)
def test_bars(spec: dict[str, Any], expected: set[Bar]) -> None:
    """Cordons and lost nodes are told from other taints."""
    node = convert({"kind": "Node", "spec": spec}, Node)
    assert set(bars(node, node.spec.taints, ())) == expected
