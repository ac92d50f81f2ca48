"""Runs, attempts, events and metrics, the same on SQLite and PostgreSQL."""

import math

import hypothesis
import pytest
from hypothesis import strategies as st

from tradewind.errors import NotFoundError, SpecError
from tradewind.store import Attempt, Event, Metric, Run, Store, new_id, open_store

FULL = Run(
    id="0a",
    name="full",
    state="failed",
    created_s=1.5,
    started_s=2.5,
    ended_s=3.5,
    spec={"script": "a.py", "args": ["x"], "nested": {"a": None, "b": 1.5, "c": "\u00e9\n\x00"}},
    snapshot="sha256:00",
    dir="/tmp/with space",
    pid=2**31,
    exit_code=-9,
)


def test_a_run_comes_back_as_it_was_put(store: Store, store_url: str) -> None:
    """Every field of a run survives, also for a process that opens the store afterwards."""
    store.add_run(FULL)
    with open_store(store_url) as other:
        assert other.run("0a") == FULL


def test_updating_a_run(store: Store, run: Run) -> None:
    """Only the named fields change, and the new run is returned."""
    new = store.update_run(run.id, state="running", pid=7, started_s=2)
    assert (new.state, new.pid, new.started_s, new.name) == ("running", 7, 2.0, "first")
    assert store.run(run.id) == new
    with pytest.raises(NotFoundError, match="nobody"):
        store.update_run("nobody", pid=1)
    with pytest.raises(TypeError, match="stat"):
        store.update_run(run.id, stat="running")
    with pytest.raises(TypeError, match="state"):
        store.update_run(run.id, state="asleep")
    assert store.run(run.id) == new


def test_an_id_is_taken_once(store: Store, run: Run) -> None:
    """A second run with the same id, or a second attempt with the same index, is refused."""
    with pytest.raises(SpecError, match="abc123 exists"):
        store.add_run(run)
    with pytest.raises(TypeError, match="state"):
        store.add_run(Run(id="other", name="x", created_s=1.0, state="asleep"))  # type: ignore[arg-type]
    store.add_attempt(Attempt(run=run.id, index=0))
    with pytest.raises(SpecError, match="attempt 0 already"):
        store.add_attempt(Attempt(run=run.id, index=0))


def test_what_names_a_run(store: Store) -> None:
    """An id, a name (the newest), `last`, or the start of one id only; anything else says why not."""
    for index, (id, name) in enumerate([("aa11", "x"), ("aa22", "y"), ("bb33", "x"), ("y_%4", "z")]):
        store.add_run(Run(id=id, name=name, created_s=float(index)))
    found = {ref: store.run(ref).id for ref in ("aa11", "aa1", "x", "y", "bb", "y_", "last")}
    assert found == {
        "aa11": "aa11",
        "aa1": "aa11",
        "x": "bb33",
        "y": "aa22",
        "bb": "bb33",
        "y_": "y_%4",
        "last": "y_%4",
    }
    with pytest.raises(NotFoundError, match=r"several runs \(aa22, aa11"):
        store.run("aa")
    for ref in ("", "AA11", "%", "zzz", "a_", "\x00", "\ud800"):
        with pytest.raises(NotFoundError, match="no run"):
            store.run(ref)


def test_last_means_the_newest_run(store: Store) -> None:
    """`last` follows the creation time, then the order of adding, and no run may be called that."""
    with pytest.raises(NotFoundError):
        store.run("last")
    for id, created_s in (("a", 2.0), ("b", 2.0), ("c", 1.0)):
        store.add_run(Run(id=id, name="same", created_s=created_s))
    assert store.run("last").id == store.run("same").id == "b"
    assert [run.id for run in store.runs()] == ["b", "a", "c"]
    assert [run.id for run in store.runs(limit=1)] == ["b"]
    with pytest.raises(SpecError, match="last"):
        store.add_run(Run(id=new_id(), name="last", created_s=3.0))


def test_attempts(store: Store, run: Run) -> None:
    """Attempts of a run come back by index and change like runs do."""
    for index in (1, 0):
        store.add_attempt(Attempt(run=run.id, index=index, started_s=1.0))
    new = store.update_attempt(
        run.id, 0, state="failed", exit_code=1, reason="rank 1: log with \x00 and \ud800"
    )
    assert [(item.index, item.state) for item in store.attempts(run.id)] == [(0, "failed"), (1, "pending")]
    assert (new.exit_code, store.attempts(run.id)[0].reason) == (1, r"rank 1: log with \x00 and \ud800")
    with pytest.raises(NotFoundError):
        store.update_attempt(run.id, 5, state="failed")
    with pytest.raises(NotFoundError):
        store.add_attempt(Attempt(run="nobody", index=0))


def test_events_come_in_order(store: Store, run: Run) -> None:
    """Events keep their order and data; `after` gives exactly what was added since."""
    store.add_events(
        Event(run=run.id, attempt=0, rank=n % 2, t_s=n / 2, kind="step", data={"n": n}) for n in range(5)
    )
    first = store.events(run.id)
    assert [event.data["n"] for event in first] == [0, 1, 2, 3, 4]
    assert [event.seq for event in first] == sorted({event.seq for event in first})
    store.add_events([Event(run=run.id, attempt=1, t_s=9.0, kind="end", data={"text": "\x00 \u20ac"})])
    (new,) = store.events(run.id, after=first[-1].seq)
    assert (new.kind, new.rank, new.attempt, new.data) == ("end", None, 1, {"text": "\x00 \u20ac"})
    assert [event.kind for event in store.events(run.id, kind="end")] == ["end"]
    store.add_events([])
    assert store.events("nobody") == []


def test_a_batch_is_kept_whole_or_not_at_all(store: Store, run: Run) -> None:
    """Events of which one cannot be kept are all refused."""
    good = Event(run=run.id, attempt=0, t_s=1.0, kind="step")
    with pytest.raises(NotFoundError, match="nobody"):
        store.add_events([good, Event(run="nobody", attempt=0, t_s=1.0, kind="step")])
    assert store.events(run.id) == []


def test_metrics_keep_every_value(store: Store, run: Run) -> None:
    """Diverged values are kept too: NaN, infinities, the largest and the smallest double."""
    values = [0.1, math.inf, -math.inf, math.nan, 1.7976931348623157e308, 5e-324]
    store.add_metrics(
        Metric(run=run.id, attempt=0, rank=0, step=n, name="loss", value=value, t_s=1.0)
        for n, value in enumerate(values)
    )
    store.add_metrics([Metric(run=run.id, attempt=0, rank=0, step=2**40, name="lr", value=1.0, t_s=1.0)])
    assert [repr(metric.value) for metric in store.metrics(run.id, "loss")] == [
        repr(value) for value in values
    ]
    assert [metric.step for metric in store.metrics(run.id)] == [*range(6), 2**40]


TEXT = st.text(max_size=8) | st.sampled_from(
    ["\x00", "\ud800", "\U0001f600", "'; DROP TABLE runs; --", "a" * 70_000]
)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


def escaped(value: object) -> object:
    """Data as it comes back: a lone surrogate, which no UTF-8 text can hold, is spelled out."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {escaped(key): escaped(item) for key, item in value.items()}
    return [escaped(item) for item in value] if isinstance(value, list) else value


@hypothesis.settings(
    max_examples=25, deadline=None, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture]
)
@hypothesis.given(data=st.dictionaries(TEXT, JSON, max_size=4), text=TEXT)
def test_any_data_comes_back(store: Store, data: dict[str, object], text: str) -> None:
    """Whatever a log or a config contains can be kept, and comes back the same on both databases."""
    id = new_id()
    store.add_run(Run(id=id, name=f"{id} {text}", created_s=1.0, spec=data, dir=text))
    store.add_events([Event(run=id, attempt=0, t_s=1.0, kind=text, data=data)])
    assert store.run(id).spec == escaped(data)
    assert [event.data for event in store.events(id, kind=text)] == [escaped(data)]
    assert store.run(f"{id} {text}").id == id
