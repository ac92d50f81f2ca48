"""The index without knobs reaches its recall, whatever the filter, says why, and corrects itself."""

import math
import warnings

import msgspec
import numpy as np
import pytest

from tradewind.retrieve import Filter, FilterError
from tradewind.retrieve.attributes import Attributes
from tradewind.retrieve.auto import AutoIndex
from tradewind.retrieve.filters import Equal, Flag, Not, Range
from tradewind.retrieve.measure import recall_of
from tradewind.retrieve.plan import Ask, Cell, Curve, Profile, choose, fetched
from tradewind.retrieve.scan import best_rows

with warnings.catch_warnings():
    # SWIG's own types warn when first imported.
    warnings.simplefilter("ignore", DeprecationWarning)
    import faiss  # noqa: F401

NUM_ITEMS, DIMENSION, NUM_CLUSTERS = 20_000, 16, 40


class World:
    """Clustered items with attributes: `u` uniform in [0, 1), `cluster` the item's own, `rare` one in two hundred."""

    def __init__(self) -> None:
        generator = np.random.default_rng(0)
        centres = generator.standard_normal((NUM_CLUSTERS, DIMENSION), dtype=np.float32)
        self.cluster = generator.integers(0, NUM_CLUSTERS, NUM_ITEMS)
        spread = 0.4 * generator.standard_normal((NUM_ITEMS, DIMENSION), dtype=np.float32)
        self.table = centres[self.cluster] + spread
        self.table /= np.linalg.norm(self.table, axis=1, keepdims=True)
        self.queries = centres[np.arange(60) % NUM_CLUSTERS] + spread[:60]
        self.columns = {
            "u": generator.random(NUM_ITEMS),
            "cluster": [f"c{i}" for i in self.cluster],
            "rare": generator.random(NUM_ITEMS) < 0.005,
        }
        self.attributes = Attributes(self.columns)

    def exact(self, k: int, wanted: Filter | None = None) -> np.ndarray:
        """The true answer for `queries`."""
        import torch

        held = np.arange(NUM_ITEMS) if wanted is None else np.flatnonzero(self.attributes.mask(wanted))
        return held[best_rows(torch.from_numpy(self.table[held]), self.queries, k).rows]


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@pytest.fixture(scope="module")
def index(world: World) -> AutoIndex:
    return AutoIndex(world.table, attributes=world.attributes)


@pytest.mark.parametrize(
    "wanted",
    [
        None,
        Range(field="u", max=0.5),
        Range(field="u", max=0.1),
        Range(field="u", max=0.01),
        Flag(field="rare"),
        Equal(field="cluster", value="c7"),
        Not(filter=Equal(field="cluster", value="c7")),
    ],
    ids=str,
)
@pytest.mark.parametrize("k", [10, 100])
def test_recall_reaches_the_target_under_every_filter(
    world: World, index: AutoIndex, wanted: Filter | None, k: int
) -> None:
    """Also where the filter is about something far from most queries; the first time it comes and later."""
    expected = world.exact(k, wanted)
    for _ in range(3):
        hits = index.search(world.queries, k, filters=[wanted] * len(world.queries))
        assert recall_of(hits.positions, expected).mean() >= 0.98
        assert (hits.positions >= 0).sum() == expected.size
        if wanted is not None:
            assert world.attributes.mask(wanted, hits.positions.ravel()[hits.positions.ravel() >= 0]).all()


def test_probing_itself_reaches_the_target_under_every_filter(world: World, index: AutoIndex) -> None:
    """Where probing is forced, it looks at more lists as the filter gets narrower or farther."""
    from tradewind.retrieve import execute
    from tradewind.retrieve.plan import Plan

    base = index.state.base
    assert base.inverted is not None
    for wanted in (Range(field="u", max=0.1), Equal(field="cluster", value="c7")):
        plan = Plan("probe", 1200, 0.0, 0.1, "forced")
        allowed = base.subset(wanted).allowed(base.inverted, index.state.dead)
        probes = base.inverted.probes(world.queries, plan.need, allowed)
        found = base.inverted.search(world.queries, 50, probes, allowed)[1]
        assert recall_of(found, world.exact(50, wanted)).mean() >= 0.97
        free = base.inverted.probes(world.queries, plan.need, None)
        assert (probes.lists >= 0).sum() > (free.lists >= 0).sum()
        again = execute.run(index.state, plan, world.queries, 50, wanted)
        assert recall_of(again.positions, world.exact(50, wanted)).mean() >= 0.97


def test_a_plan_says_what_it_is_and_why(world: World, index: AutoIndex) -> None:
    """Each query of a batch has the plan of its own filter."""
    explained = index.explained(world.queries[:3], 10, filters=[None, Flag(field="rare"), None])
    assert [plan.share == 1.0 for plan in explained.plans] == [True, False, True]
    assert all(plan.name in plan.reason and "us" in plan.reason for plan in explained.plans)


def profile(need: int = 400) -> Profile:
    line = Curve(rows=(1000, 10_000), one_us=(20.0, 200.0), batched_us=(10.0, 100.0), batch=16)
    cells = tuple(Cell(k=100, share=share, need=need, recall=0.995) for share in (1.0, 0.1, 0.01))
    dear = Curve(rows=(1000,), one_us=(600.0,), batched_us=(600.0,), batch=16)
    return Profile(
        target=0.99,
        cells=cells,
        scan=line,
        subset=line,
        probe=line,
        gather=dear,
        compile_us=500.0,
        group_us=90.0,
    )


ALL = Ask(num_queries=1, k=100, num_items=1_000_000, num_allowed=1_000_000, filtered=False)


@pytest.mark.parametrize(
    ("ask", "name"),
    [
        (ALL, "probe"),
        (ALL._replace(filtered=True, num_allowed=500_000), "probe"),
        (ALL._replace(filtered=True, num_allowed=500_000, compiled=False), "overfetch"),
        (ALL._replace(filtered=True, num_allowed=10_000), "scan"),
        (ALL._replace(filtered=True, num_allowed=100, compiled=False), "scan"),
        (ALL._replace(filtered=True, num_allowed=0), "scan"),
    ],
)
def test_the_cheapest_plan_by_the_profile_is_chosen(ask: Ask, name: str) -> None:
    """Wide filters are probed, narrow ones scanned, and a filter that is new and wide is asked about few items only."""
    assert choose(profile(), ask, {}).name == name


def test_few_queries_of_a_filter_see_what_it_holds_alone() -> None:
    """They pay for the items that must be seen; many queries, and those without a filter, for all rows of the lists."""
    tenth = ALL._replace(filtered=True, num_allowed=100_000)
    assert (choose(profile(), tenth, {}).us, choose(profile(), tenth, {}).most_rows) == (600.0, math.inf)
    assert choose(profile(), tenth._replace(num_queries=4), {}).us == 4 * 600.0
    many = choose(profile(), tenth._replace(num_queries=5), {})
    assert many.us == profile().probe.at(4000, 5)
    assert many.most_rows < math.inf
    assert choose(profile(), ALL, {}).us == profile().probe.at(400, 1)
    new = tenth._replace(compiled=False)
    assert choose(profile(need=20_000), new, {}).us == 500.0 + profile().subset.at(100_000, 1)
    wide = choose(profile(need=20_000), new._replace(num_allowed=1_000_000), {("overfetch", 1.0): math.inf})
    assert (wide.name, wide.us) == ("probe", 500.0 + 90.0 + profile().gather.at(20_000, 1))


def test_a_query_by_itself_finds_what_it_finds_among_many(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of its lists only what the filter holds, or a bitmap asked about every row: the same items, dead ones in neither.

    What is kept of a filter is of those that are dead now.
    """
    from tradewind.retrieve import auto, execute
    from tradewind.retrieve.plan import Plan

    monkeypatch.setattr(auto, "_REBUILD_SHARE", 1.0)
    index = AutoIndex(world.table, attributes=world.attributes)
    plan, dead = Plan("probe", 300, 0.0, 1.0, "forced"), np.zeros(NUM_ITEMS, dtype=np.bool_)
    for each in (0, 30, 7):
        if each:
            index.delete(np.arange(0, NUM_ITEMS, each))
            dead[::each] = True
        for wanted in (
            Range(field="u", max=0.5),
            Range(field="u", max=0.05),
            Equal(field="cluster", value="c7"),
        ):
            many = execute.run(index.state, plan, world.queries, 40, wanted)
            assert not dead[many.positions].any()
            for row in range(0, len(world.queries), 7):
                few = execute.run(index.state, plan, world.queries[row : row + 3], 40, wanted)
                np.testing.assert_array_equal(few.positions, many.positions[row : row + 3])
                np.testing.assert_allclose(few.scores, many.scores[row : row + 3], rtol=1e-5)


def test_a_share_that_probing_cannot_serve_is_scanned() -> None:
    """Where no measured number of probes reached the target, nothing but a scan is chosen."""
    assert choose(profile(need=0), ALL, {}).name == "scan"
    assert choose(None, ALL, {}).name == "scan"


def test_a_correction_asks_for_more_and_then_forbids() -> None:
    """A factor multiplies what must be seen; infinity leaves the scan."""
    assert choose(profile(), ALL, {("probe", 1.0): 2.0}).need == 800
    assert choose(profile(), ALL, {("probe", 1.0): math.inf}).name == "scan"
    assert choose(profile(), ALL, {("probe", 0.1): math.inf}).name == "probe"


def test_over_fetching_looks_at_as_many_rows_as_probing_would() -> None:
    """Measured at the filter's own share: the neighbours of k / share items lie where no cell has looked."""
    new = ALL._replace(filtered=True, num_allowed=100_000, compiled=False)
    plan = choose(profile(need=400), new, {})
    assert (plan.name, plan.need) == ("overfetch", 4000)
    assert choose(profile(need=400), new, {("overfetch", 0.1): 2.0}).need == 8000
    unreachable = tuple(
        Cell(k=100, share=share, need=400 if share == 1.0 else 0, recall=0.9) for share in (1.0, 0.1, 0.01)
    )
    assert choose(msgspec.structs.replace(profile(), cells=unreachable), new, {}).name == "scan"


def test_as_many_living_items_are_seen_whatever_died(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What must be seen was measured when nothing was dead; half of the items are gone before the rebuild here."""
    from tradewind.retrieve import auto, execute
    from tradewind.retrieve.inverted import Inverted
    from tradewind.retrieve.plan import Plan

    monkeypatch.setattr(auto, "_REBUILD_SHARE", 1.0)
    index = AutoIndex(world.table, attributes=world.attributes)
    dead = np.random.default_rng(3).permutation(NUM_ITEMS)[: NUM_ITEMS // 2]
    index.delete(dead)
    looked, probes = [], Inverted.probes
    monkeypatch.setattr(
        Inverted, "probes", lambda self, *given: looked.append(probes(self, *given)) or looked[-1]
    )
    base = index.state.base
    assert base.inverted is not None
    living = np.isin(np.arange(NUM_ITEMS), dead, invert=True)
    for name, wanted in (
        ("probe", None),
        ("probe", Range(field="u", max=0.5)),
        ("overfetch", Flag(field="rare")),
    ):
        execute.run(index.state, Plan(name, 600, 0.0, 1.0, "forced"), world.queries, 20, wanted)
        held = living if name == "overfetch" or wanted is None else living & world.attributes.mask(wanted)
        per_list = np.bincount(base.inverted.assigned[held], minlength=base.inverted.num_lists)
        seen = np.where(looked[-1].lists < 0, 0, per_list[looked[-1].lists]).sum(1)
        assert seen.mean() >= 600, (name, wanted)


def test_the_vectors_of_a_narrow_filter_are_kept_side_by_side(world: World) -> None:
    """From its second search on, and only of one; both searches find the same."""
    index = AutoIndex(world.table, attributes=world.attributes)
    base, narrow, wide = index.state.base, Flag(field="rare"), Range(field="u", max=0.1)
    assert base.subset(narrow).packed() is None
    packed = base.subset(narrow).packed()
    assert packed is not None
    np.testing.assert_array_equal(packed.numpy(), world.table[base.subset(narrow).positions()])
    assert [base.subset(wide).packed() for _ in range(3)] == [None] * 3
    index.delete(world.exact(1, narrow)[:, 0])
    other = AutoIndex(world.table, attributes=world.attributes)
    other.delete(world.exact(1, narrow)[:, 0])
    packed_hits, first = (i.search(world.queries, 10, filters=[narrow] * 60) for i in (index, other))
    np.testing.assert_array_equal(packed_hits.positions, first.positions)
    np.testing.assert_allclose(packed_hits.scores, first.scores, rtol=1e-6)


def test_an_overfetch_that_left_too_few_is_done_again(world: World) -> None:
    """When the estimated share was wrong by far the answer is still whole and exact."""
    from tradewind.retrieve import execute
    from tradewind.retrieve.plan import Plan

    index = AutoIndex(world.table, attributes=world.attributes)
    wanted = Flag(field="rare")
    plan = Plan("overfetch", 400, 0.0, 1.0, "forced")
    found = execute.run(index.state, plan, world.queries, 40, wanted)
    assert fetched(40, 1.0) < 100
    assert found.exact.any()
    assert recall_of(found.positions[found.exact], world.exact(40, wanted)[found.exact]).mean() == 1.0
    assert (found.positions >= 0).all()


def test_an_audit_finds_a_plan_that_loses_recall_and_corrects_it(world: World) -> None:
    """A profile that promises too much is found out from served searches; the recall is back after corrections."""
    index = AutoIndex(world.table, attributes=world.attributes, audit_share=1.0)
    base = index.state.base
    assert base.profile is not None
    assert index.audit.run_one() is None
    lying = [msgspec.structs.replace(cell, need=cell.k) for cell in base.profile.cells]
    base.profile = msgspec.structs.replace(base.profile, cells=tuple(lying))
    queries = world.queries + 0.3 * np.random.default_rng(1).standard_normal(world.queries.shape).astype("f4")
    said: list[str] = []
    for start in range(0, 40 * 60, 60):
        for row in range(60):
            index.search(queries[row : row + 1], 100)
        assert start or index.audit.due() == 60
        while index.audit.due():
            finding = index.audit.run_one()
            assert finding is not None
            said += [finding.correction] if finding.correction else []
        if not index.audit.due() and all(recall.low >= 0.985 for recall in index.audit.recalls()):
            break
    assert "looks at 2 times as much" in said[0]
    assert "under 0.99" in said[0]
    assert index.audit.corrections
    import torch

    exact = best_rows(torch.from_numpy(world.table), queries, 100).rows
    found = np.concatenate([index.search(queries[row : row + 1], 100).positions for row in range(60)])
    assert recall_of(found, exact).mean() >= 0.98


def test_exact_searches_are_not_audited_and_the_share_is_kept(world: World, index: AutoIndex) -> None:
    """A scan needs no audit; a share of nothing keeps nothing."""
    quiet = AutoIndex(world.table[:500], audit_share=1.0)
    quiet.search(world.queries, 10)
    assert quiet.audit.due() == 0
    with pytest.raises(ValueError, match="between 0 and 1"):
        AutoIndex(world.table[:500], audit_share=2.0)


def test_attributes_and_filters_must_fit(world: World, index: AutoIndex) -> None:
    """Rows of attributes as many as items; filters as many as queries, of known fields."""
    with pytest.raises(ValueError, match="20000 rows of attributes for 100 items"):
        AutoIndex(world.table[:100], attributes=world.attributes)
    with pytest.raises(ValueError, match="1 filters for 60 queries"):
        index.search(world.queries, 10, filters=[None])
    with pytest.raises(FilterError, match="did you mean 'rare'"):
        index.search(world.queries[:1], 10, filters=[Flag(field="rar")])
