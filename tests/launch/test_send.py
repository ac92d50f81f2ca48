"""A run on its way to a cluster, whatever the kind: what is sent, and what the store knows when it is refused."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.launch.conftest import write
from tradewind.errors import ClusterError, StoreError, TradewindError
from tradewind.launch.ray.place import RayPlace, ray_place_of
from tradewind.launch.send import again, first, known
from tradewind.spec import RunSpec, from_stored
from tradewind.store import Run, Store, open_store

PLACE = RayPlace(on="ray:big", address="http://big:8265", submission="tradewind-a")


@pytest.fixture
def store(home: Path) -> Iterator[Store]:
    """The store of the home folder."""
    with open_store() as opened:
        yield opened


@pytest.mark.parametrize("error", [ClusterError, KeyboardInterrupt])
def test_a_run_that_is_refused_is_known_as_failed(error: type[BaseException], store: Store) -> None:
    """It is known while the cluster is asked, and stays known, whatever came of that."""
    seen = []

    def refuse(run: Run) -> None:
        seen.append(store.run(run.id).state)
        raise error("no")

    with pytest.raises(error), known(Run(id="a", name="a", created_s=1.0), store) as run:
        refuse(run)
    assert seen == ["pending"]
    refused = store.run("a")
    assert (refused.state, refused.exit_code) == ("failed", 1)
    assert refused.ended_s is not None


def test_again_is_the_same_bytes_at_the_same_place(root: Path, store: Store) -> None:
    """What is sent again is what the store knows of the first, though the project has changed since."""
    write(root, {"train.py": "print(1)\n"})
    sent = first(RunSpec(script="train.py", args=("7",), hosts=2, workers=2), "ray:big", cwd=root)
    with known(sent.run("a", 1.0, PLACE), store):
        write(root, {"train.py": "print(2)\n"})
    earlier = store.run("a")
    place = ray_place_of(earlier)
    assert place == PLACE
    repeated = again(earlier, place)
    assert (repeated.name, repeated.digest, repeated.on) == (sent.name, sent.digest, sent.on)
    assert repeated.run("b", 1.0, PLACE).spec == earlier.spec
    assert from_stored(RunSpec, repeated.stored) == from_stored(RunSpec, sent.stored)
    assert first(RunSpec(script="train.py"), "ray", cwd=root).digest != sent.digest


def test_what_cannot_be_sent_again_is_named(store: Store) -> None:
    """A run without a snapshot or without a place on this kind of cluster, and a place that cannot be read."""
    bare = Run(id="a", name="a", created_s=1.0)
    for run, place in (
        (bare, PLACE),
        (Run(id="a", name="a", created_s=1.0, snapshot="x"), ray_place_of(bare)),
    ):
        with pytest.raises(TradewindError, match="run a has no code snapshot on a cluster"):
            again(run, place)
    with pytest.raises(StoreError, match=r"run b: .* its place"):
        ray_place_of(Run(id="b", name="b", created_s=1.0, spec={"place": {"kind": "ray", "on": 1}}))
