"""The quick way to read a dump gives what msgspec gives, or leaves it to msgspec."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.launch.why.scenarios import recorded
from tests.launch.why.test_dump import JSON, places, planted
from tradewind.errors import SpecError
from tradewind.launch.why import World, explain
from tradewind.launch.why.dump import KUBECTL, quick
from tradewind.launch.why.kinds import KINDS, Node
from tradewind.launch.why.part import NotPlain, annotations, part
from tradewind.launch.why.pods import Object, Pod
from tradewind.launch.why.typed import convert, decode_listing, twin
from tradewind.record import replace


def typed(data: bytes) -> list[Object] | None:
    """What msgspec reads; None where it refuses."""
    try:
        return decode_listing(data, "dump.json", KUBECTL)
    except SpecError:
        return None


@pytest.mark.parametrize("make", recorded.SCENARIOS)
def test_what_kubectl_prints_is_read_quickly(make: Any) -> None:
    """A recorded dump is not declined, and its objects and its explanation are those that msgspec gives."""
    data = json.dumps(make()).encode()
    found, same = quick(data), typed(data)
    assert found is not None
    assert same is not None
    assert found == same
    assert explain(World(found), "job/train") == explain(World(same), "job/train")


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_it_reads_what_msgspec_reads_or_nothing(data: st.DataObject) -> None:
    """With any JSON at any place of a dump, it gives the same objects or declines."""
    whole = data.draw(st.sampled_from(list(recorded.SCENARIOS)))()
    path = data.draw(st.sampled_from(list(places(whole))))
    spoiled = json.dumps(planted(whole, path, data.draw(JSON))).encode()
    found = quick(spoiled)
    assert found is None or found == typed(spoiled)


@pytest.mark.parametrize(
    "text",
    [
        '{"items": [{"kind": "Pod", "spec": {"priority": NaN}}]}',
        '{"items": [{"kind": "Pod", "spec": {"overhead": {"cpu": 1e999}}}]}',
        '{"items": [{"kind": "Pod", "spec": {"priority": 99999999999999999999}}]}',
        '{"items": [{"kind": "Pod", "spec": {"priority": true}}]}',
        '{"items": [{"kind": "Pod", "metadata": {"name": "\\ud800"}}]}',
        '{"items": [{"kind": "Pod", "metadata": "a"}]}',
        '{"items": [{"kind": []}]}',
        '{"items": 7}',
        "[]",
        '{"a":' * 100_000,
    ],
)
def test_what_is_unusual_is_declined(text: str) -> None:
    """What Python's json takes and msgspec does not, and what has a wrong type, is left to msgspec."""
    assert quick(text.encode()) is None


def test_it_is_not_read_as_bytes_that_are_no_text() -> None:
    """A dump must be UTF-8."""
    assert quick(b'{"items": [{"kind": "Pod", "metadata": {"name": "\xff"}}]}') is None


@pytest.mark.parametrize("kind", KINDS.values())
def test_a_twin_has_the_same_fields_and_defaults(kind: type[Object]) -> None:
    """An empty object is the same, however it was read; a field that may be null is null when absent."""
    assert part(kind, {}) == convert({}, kind)
    assert type(convert({}, kind)) is kind
    assert not hasattr(twin(kind)(), "__dict__")  # The decoder crashes with such structs now and then.
    for name, type_ in annotations(kind).items():
        assert type(None) not in getattr(type_, "__args__", ()) or getattr(kind, name) is None


def test_copies_have_the_other_values() -> None:
    """`replace` works on what was built, on what was read quickly, and on twins."""
    raw = {"metadata": {"name": "a"}, "spec": {"unschedulable": True}}
    for node in (part(Node, raw), convert(raw, Node), Node(metadata=part(Node, raw).metadata)):
        changed = replace(node, kind="Node")
        assert (changed.kind, changed.metadata.name, node.kind) == ("Node", "a", "")


def test_records_refuse_what_they_do_not_have() -> None:
    """Unknown and missing fields are errors, and nothing can be set afterwards."""
    with pytest.raises(TypeError, match="Pod has no nam"):
        Pod(nam="a")  # type: ignore[call-arg]
    with pytest.raises(AttributeError, match="cannot be set"):
        Pod().kind = "Job"  # type: ignore[misc]
    with pytest.raises(NotPlain):
        part(Pod, [])
