"""Dumps come from strangers: whatever is in one, there is an explanation or an error that names the place."""

import contextlib
import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.launch.why.scenarios import recorded
from tradewind.errors import NotFoundError, SpecError, TradewindError
from tradewind.launch.why import decode_dump, dump, explain, read_dump, typed
from tradewind.launch.why.kinds import Event, Node
from tradewind.launch.why.typed import decode_list

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a JSON value."""
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in inner:
        yield from places(each, (*path, key))


def planted(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """A copy of a JSON value with another one at a place of it."""
    if not path:
        return new
    result = copy.copy(value)
    result[path[0]] = planted(value[path[0]], path[1:], new)
    return result


def without(value: Any, path: tuple[Any, ...]) -> Any:
    """A copy of a JSON value that lacks a place of it."""
    result = copy.copy(value)
    if len(path) == 1:
        del result[path[0]]
    else:
        result[path[0]] = without(value[path[0]], path[1:])
    return result


def decoded(value: Any) -> dict[str, Any]:
    """All that a dump of this value holds."""
    return vars(decode_dump(json.dumps(value).encode(), "dump.json"))


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_any_value_at_any_place(data: st.DataObject) -> None:
    """Any JSON at any place of a dump gives an explanation or an error of ours, never another exception."""
    make = data.draw(st.sampled_from(list(recorded.SCENARIOS)))
    whole = make()
    path = data.draw(st.sampled_from(list(places(whole))))
    spoiled = json.dumps(planted(whole, path, data.draw(JSON))).encode()
    with contextlib.suppress(TradewindError):
        assert explain(decode_dump(spoiled, "dump.json"), "job/train").causes


@pytest.mark.parametrize("make", recorded.SCENARIOS)
def test_nulls_are_absent_fields(make: Callable[[], Any]) -> None:
    """Every field may be null, as Go prints empty ones, and reads as if it were not there."""
    whole = make()
    for path in places(whole):
        if len(path) > 2:
            assert decoded(planted(whole, path, None)) == decoded(without(whole, path)), path


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "is not JSON"),
        ("kind: List", "is not JSON"),
        ("[1]", "is no List of objects (Expected `object`, got `array`)"),
        ('{"kind": "List", "items": {}}', "`$.items`"),
        ('{"kind": "List", "items": [7]}', "items[0] (no kind): Expected `object`, got `int`"),
        (
            '{"kind": "List", "items": [{"kind": "Secret"}, {"kind": "Pod", "spec": {"nodeName": 5}}]}',
            "items[1] (Pod)",
        ),
        ('{"kind": "List", "items": [{"kind": "Pod", "spec": {"nodeName": 5}}]}', "spec.nodeName"),
        ('{"a":' * 100_000, "is not JSON"),
    ],
)
def test_what_is_wrong_is_named(text: str, named: str) -> None:
    """An unusable dump is refused with the source and the place in it."""
    with pytest.raises(SpecError) as raised:
        decode_dump(text.encode(), "dump.json")
    assert str(raised.value).startswith("dump.json: ")
    assert named in str(raised.value)


def test_a_huge_file_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No more than the limit is read."""
    monkeypatch.setattr(dump, "LIMIT_MIB", 1)
    (tmp_path / "dump.json").write_bytes(b" " * (1 << 20) + b" {}")
    with pytest.raises(SpecError, match="larger than 1 MiB"):
        read_dump(str(tmp_path / "dump.json"))


def test_a_missing_file_says_how_to_write_one(tmp_path: Path) -> None:
    """The error for a missing dump holds the kubectl command."""
    with pytest.raises(SpecError, match="kubectl get -o json jobs"):
        read_dump(str(tmp_path / "none.json"))


def test_members_of_a_pod_list_have_its_kind() -> None:
    """`kubectl get --raw` prints a PodList whose items do not name their kind."""
    listed = {"kind": "PodList", "items": [{"metadata": {"name": "a", "namespace": "n"}}]}
    assert decode_dump(json.dumps(listed).encode(), "d").names("Pod", "n") == {"a"}


def test_a_quantity_that_is_none_is_named() -> None:
    """A resource amount that cannot be read is an error with its text."""
    spoiled = recorded.events_have_expired()
    spoiled["items"][1]["status"]["hard"]["requests.nvidia.com/gpu"] = "sixteen"
    with pytest.raises(SpecError, match="'sixteen' is none"):
        explain(decode_dump(json.dumps(spoiled).encode(), "d"), "job/train")


def test_the_nearest_job_is_named() -> None:
    """A misspelt job is not found, and the nearest name is given."""
    world = decode_dump(json.dumps(recorded.volcano_gang()).encode(), "d")
    with pytest.raises(NotFoundError, match="did you mean job/train"):
        explain(world, "job/trian")


def test_a_run_is_found_by_its_label() -> None:
    """A run's id, or the start of it, means the Job that bears it."""
    labelled = recorded.volcano_gang()
    labelled["items"][0]["metadata"]["labels"]["tradewind.dev/run"] = "0123456789ab"
    world = decode_dump(json.dumps(labelled).encode(), "d")
    assert explain(world, "01234567").job == "team/job/train"


def test_a_name_in_two_namespaces_is_asked_about() -> None:
    """A name that two namespaces have is refused until a namespace is given."""
    doubled = recorded.volcano_gang()
    other = json.loads(json.dumps(doubled["items"][0]))
    other["metadata"] |= {"namespace": "other", "uid": "job-2"}
    doubled["items"].append(other)
    world = decode_dump(json.dumps(doubled).encode(), "d")
    with pytest.raises(SpecError, match="choose with --namespace"):
        explain(world, "job/train")
    assert explain(world, "job/train", "other").job == "other/job/train"


def test_text_from_a_dump_cannot_steer_a_terminal() -> None:
    """Control characters in a message are not passed on as evidence."""
    spoiled = recorded.nodes_not_in_the_dump()
    spoiled["items"][1]["status"]["conditions"][0]["message"] = "1 Insufficient cpu\x1b[2J\x07"
    found = explain(decode_dump(json.dumps(spoiled).encode(), "d"), "job/train")
    assert "\x1b" not in found.causes[0].evidence[0].value
    assert "\x1b" not in found.causes[0].text


@pytest.mark.timeout(20)
@pytest.mark.parametrize("word", ["NCCL", "Store ", "gloo ", "requested: a=b,", "1 node(s) ", 'configmap "'])
def test_endless_messages_cost_nothing(word: str) -> None:
    """A message of megabytes, made to have the search for known sayings start over and over, is looked at in part."""
    long = word * 400_000
    spoiled = recorded.failing_and_tried_again()
    ended = spoiled["items"][2]["status"]["containerStatuses"][0]["state"]["terminated"]
    ended["message"] = long
    spoiled["items"].append(recorded.pod(1, recorded.refused(long)))
    spoiled["items"].append(recorded.event("Job", "train", "FailedCreate", long))
    spoiled["items"][0]["spec"]["parallelism"] = 5
    spoiled["items"][0]["spec"]["completions"] = 5
    assert explain(decode_dump(json.dumps(spoiled).encode(), "d"), "job/train").causes


def test_a_list_of_the_api_is_decoded_into_what_rules_use() -> None:
    """Members of a list get the kind that they do not state, and a null stands for nothing at all."""
    data = b'{"kind": "NodeList", "items": [{"metadata": {"name": "a", "labels": null}}, {"metadata": {"name": "b"}}]}'
    found = decode_list(data, Node, "Node")
    assert [(item.ref, item.metadata.labels) for item in found] == [("node/a", {}), ("node/b", {})]
    assert decode_list(b'{"kind": "NodeList", "items": null}', Node, "Node") == []


@pytest.mark.parametrize(
    ("times", "last"),
    [
        ({"eventTime": None, "firstTimestamp": "1", "lastTimestamp": "2"}, "2"),
        ({"eventTime": "3", "firstTimestamp": None, "lastTimestamp": None, "series": None}, "3"),
        ({"eventTime": "3", "lastTimestamp": None, "series": {"lastObservedTime": "4"}}, "4"),
    ],
)
def test_events_are_read_at_the_first_try(
    times: dict[str, Any], last: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The nulls of every event, of which a cluster has thousands, do not send each through the slow reading."""
    monkeypatch.delattr(typed, "_decode")
    data = json.dumps({"items": [{"metadata": {"name": "a"}, "message": "m"} | times]}).encode()
    (event,) = decode_list(data, Event, "Event")
    assert (event.kind, event.time, event.text) == ("Event", last, "m")
