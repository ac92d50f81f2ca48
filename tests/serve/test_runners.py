"""What a worker runs: programs batched where they can be, warmed up and measured before the first request."""

import itertools

import pytest
import torch
from structlog.testing import capture_logs

from tests.serve.conftest import NUM_ITEMS
from tradewind.errors import TradewindError
from tradewind.models import Package, open_package
from tradewind.serve.device import Naive, OnDevice
from tradewind.serve.programs import Running
from tradewind.serve.runners import programs_on, runners_of
from tradewind.serve.wire import Program


@pytest.fixture(scope="module")
def described(generic) -> dict[str, Program]:
    """What the generic package's programs say of themselves, by a clock that ticks once a look."""
    ticks = itertools.count()
    runners = runners_of(open_package(generic), 6, 0, "exact")
    return {name: r.describe(lambda: float(next(ticks)), 2) for name, r in runners.items()}


def test_programs_are_batched_where_all_ports_share_their_first_dimension(described):
    """Others run one request at a time."""
    assert {name: p.max_rows for name, p in described.items()} == {"affine": 6, "lookup": 6, "total": 1}


def test_every_size_is_measured(described):
    """Powers of two up to the limit, and the limit."""
    assert described["affine"].profile_s == {1: 1.0, 2: 1.0, 4: 1.0, 6: 1.0}
    assert list(described["total"].profile_s) == [1]


def test_outputs_come_by_name(generic):
    """Programs that give a dict, a tensor or a tuple are run alike."""
    runners = runners_of(open_package(generic), 6, 0, "exact")
    x, ids = torch.ones(2, 4), torch.tensor([3, 4])
    affine = runners["affine"].run({"ids": ids, "x": x})
    assert affine["y"].tolist() == (x * 2 + 1).tolist()
    assert affine["next"].tolist() == [4, 5]
    assert next(iter(runners["lookup"].run({"ids": ids[:, None]}).values())).shape == (2, 1, 4)
    assert [t.tolist() for t in runners["total"].run({"x": x[0]}).values()] == [4.0, False]


def test_a_recommender_runs_whole_histories_to_be_measured(recommender):
    """Of the longest length, at every batch size."""
    runner = runners_of(open_package(recommender), 4, 20, "exact")["recommend"]
    about = runner.describe(iter(range(1000)).__next__, 1)
    assert (list(about.profile_s), about.max_rows) == ([1, 2, 4], 4)


def test_a_second_worker_is_told_what_the_first_learnt(recommender, tmp_path, monkeypatch):
    """By what this machine keeps of the package's items."""
    monkeypatch.setenv("TRADEWIND_HOME", str(tmp_path))
    package = open_package(recommender)
    for _ in range(2):
        with capture_logs() as logs:
            runners_of(package, 4, 20, "faiss-ivf")
    assert [line["event"] for line in logs] == ["kept index read"]
    assert len(list((tmp_path / "indexes").glob("*.index"))) == 1


def test_a_package_on_a_device_answers_the_same(generic, recommender):
    """Programs that batch and those that do not; a recommender's, whose search stays on the CPU, at each width."""
    for folder, chosen in (
        (generic, ("affine", "lookup", "total")),
        (recommender, ("recommend", "recommend.1")),
    ):
        device, package = Naive(), open_package(folder)
        on_cpu = runners_of(package, 4, 40, "exact")
        on_device = runners_of(package, 4, 40, "exact", programs=programs_on(device, package, 4))
        for name in chosen:
            on_device[name].describe(lambda: 0.0, 1)
        device.warming = False
        for name, rows in itertools.product(chosen, (1, 3, 4)):
            inputs = on_cpu[name]._sample(rows)
            expected, found = on_cpu[name].run(inputs), on_device[name].run(inputs)
            assert found.keys() == expected.keys()
            for key, value in expected.items():
                torch.testing.assert_close(found[key], value, equal_nan=True)


def test_what_is_batched_is_captured_at_start_up(generic, recommender):
    """Each batch size, for a ranker at the width of each level; jagged histories and sums are not batched."""

    def graphs(running: Running) -> int:
        assert isinstance(running.eager, OnDevice)
        return running.eager.graphs

    def started(folder) -> dict:
        package = open_package(folder)
        runners = runners_of(package, 16, 40, "exact", programs=programs_on(Naive(), package, 16))
        with capture_logs() as lines:
            for runner in runners.values():
                runner.describe(lambda: 0.0, 0)
        assert lines == []  # nothing was tried in vain
        return runners

    runners = started(generic)
    assert {name: graphs(runner._module) for name, runner in runners.items()} == {
        "affine": 5,
        "lookup": 5,
        "total": 0,
    }
    runners = started(recommender)
    widths = {r.rung.candidates for r in runners.values() if r.rung.rank}
    recommend = runners["recommend"].recommender
    assert (graphs(recommend._encode), graphs(recommend._rank)) == (0, 5 * len(widths))
    assert len(widths) > 1


def test_a_package_whose_config_cannot_be_served_is_refused_when_loaded(recommender):
    """The first request is not the one to find out."""
    package = open_package(recommender)
    changed = package.config | {"popular": [NUM_ITEMS + 1]}
    broken = Package(
        package.path,
        package.manifest.__class__(**as_dict(package.manifest, config=changed)),
        package._contents,
    )
    with pytest.raises(TradewindError, match=f"popular item {NUM_ITEMS + 1}"):
        runners_of(broken, 4, 20, "exact")


def as_dict(manifest, **changed):
    return {name: getattr(manifest, name) for name in manifest.__struct_fields__} | changed
