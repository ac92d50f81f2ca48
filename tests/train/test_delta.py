"""Row deltas: bitwise restore, bytes in proportion to what changed, damage named, crashes survived."""

import random
from pathlib import Path

import pytest
import torch

from bench.faults.disk import Disk, Tree, power_cuts, read_tree, torn, write_tree
from bench.faults.record import Op, Recorder, note, read_log, recording
from tradewind.errors import IntegrityError, NotFoundError, TradewindError
from tradewind.train.checkpoint.delta import DeltaStore

ROWS, WIDTH = 1000, 16


def tables(seed: int = 0) -> dict[str, torch.Tensor]:
    """An embedding and its row-wise optimizer state."""
    draw = torch.Generator().manual_seed(seed)
    return {
        "weight": torch.randn(ROWS, WIDTH, generator=draw),
        "sum": torch.rand(ROWS, generator=draw).double(),
    }


def change(state: dict[str, torch.Tensor], rows: torch.Tensor, seed: int) -> dict[str, torch.Tensor]:
    """New values in these rows; says what was touched."""
    draw = torch.Generator().manual_seed(seed)
    for table in state.values():
        table[rows] = torch.randn(len(rows), *table.shape[1:], generator=draw).to(table.dtype)
    return dict.fromkeys(state, rows)


def copy(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: table.clone() for name, table in state.items()}


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    """Bit for bit."""
    return left.keys() == right.keys() and all(
        left[name].dtype == right[name].dtype
        and left[name].shape == right[name].shape
        and left[name]
        .contiguous()
        .reshape(-1)
        .view(torch.uint8)
        .equal(right[name].contiguous().reshape(-1).view(torch.uint8))
        for name in left
    )


def chain(
    root: Path, steps: int = 5, **options: float
) -> tuple[DeltaStore, dict[int, dict[str, torch.Tensor]]]:
    """A base and deltas to it, and what was saved at each step."""
    store, state, history = DeltaStore(root, **options), tables(), {}  # type: ignore[arg-type]
    store.save(0, state)
    history[0] = copy(state)
    draw = torch.Generator().manual_seed(7)
    for step in range(1, steps + 1):
        rows = torch.randint(ROWS, (20,), generator=draw)
        assert not store.save(step, state, change(state, rows, step)).full
        history[step] = copy(state)
    return store, history


@pytest.mark.parametrize("chunk_bytes", [256, 1000, 1 << 20])
def test_every_step_comes_back_bit_for_bit(tmp_path: Path, chunk_bytes: int) -> None:
    """Base and deltas restore each step exactly, with repeated rows and any size of chunks."""
    _, history = chain(tmp_path, chunk_bytes=chunk_bytes)
    reader = DeltaStore(tmp_path)
    assert reader.steps() == [0, 1, 2, 3, 4, 5]
    for step, state in history.items():
        assert same(reader.load(step), state)
    assert reader.latest() == 5


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16, torch.float8_e4m3fn, torch.int8, torch.bool, torch.complex64]
)
def test_any_dtype(tmp_path: Path, dtype: torch.dtype) -> None:
    """Rows are bytes: every dtype restores with the bits it had, NaN included."""
    table = torch.randint(0, 256, (50, 8), dtype=torch.uint8)
    table = (table > 100) if dtype is torch.bool else table.view(dtype)
    store = DeltaStore(tmp_path)
    store.save(1, {"t": table})
    table[7] = table[3]
    store.save(2, {"t": table}, {"t": torch.tensor([7])})
    assert same(store.load(2), {"t": table})


def test_bytes_follow_what_was_touched(tmp_path: Path) -> None:
    """One row in a hundred costs about a hundredth of the table, nothing touched costs a manifest."""
    store, state = DeltaStore(tmp_path), {"t": torch.randn(20_000, 64)}
    assert store.save(0, state).written_bytes >= state["t"].nbytes
    saved = store.save(1, state, change(state, torch.randperm(20_000)[:200], 1))
    assert not saved.full
    assert 0.01 < saved.written_bytes / saved.table_bytes < 0.02
    assert store.save(2, state, {"t": torch.tensor([], dtype=torch.int64)}).written_bytes < 2000


def test_a_full_save_repeats_no_chunk(tmp_path: Path) -> None:
    """Saved whole again, chunks that did not change are not written again."""
    store, state = DeltaStore(tmp_path, chunk_bytes=4096), tables()
    store.save(0, state)
    state["weight"][0] += 1
    saved = store.save(1, state)
    assert saved.full
    assert 4096 <= saved.written_bytes < 8192
    assert same(store.load(1), state)


def test_long_chains_end_in_a_base(tmp_path: Path) -> None:
    """When deltas add up to the agreed part of the table the next save is full, and the chain starts anew."""
    store, state = DeltaStore(tmp_path, compact_at=0.5), tables()
    store.save(0, state)
    kinds = [store.save(k, state, change(state, torch.arange(200), k)).full for k in range(1, 7)]
    assert kinds == [False, False, True, False, False, True]
    assert same(store.load(6), state)


def test_what_is_not_said_to_be_touched_is_stored_whole(tmp_path: Path) -> None:
    """A table without a list of rows, a new one, and one of another shape are complete in the step."""
    store, state = DeltaStore(tmp_path), tables()
    store.save(0, state)
    rows = change(state, torch.tensor([5]), 1)["weight"]
    grown = {"weight": state["weight"], "sum": torch.rand(ROWS + 1), "new": torch.randn(3, 2)}
    store.save(1, grown, dict.fromkeys(grown, rows))
    assert same(store.load(1), grown)
    state["sum"][9] = 3
    store.save(2, state, {"weight": torch.tensor([], dtype=torch.int64)})
    assert same(store.load(2), state)


def test_a_delta_belongs_to_where_training_resumed(tmp_path: Path) -> None:
    """After going back to an older step the next delta is to that step, though newer ones lie there."""
    _, history = chain(tmp_path)
    store = DeltaStore(tmp_path)
    state = store.resume(2)
    assert same(state, history[2])
    store.load(5)  # only looked at
    store.save(6, state, change(state, torch.tensor([1, 2]), 99))
    assert same(store.load(6), state)


def test_rows_restore_into_tables_that_are_there(tmp_path: Path) -> None:
    """With `into` the rows arrive in place, in contiguous tables and others; another shape is refused."""
    store, history = chain(tmp_path)
    weight, other = torch.zeros(ROWS, WIDTH), torch.zeros(2 * ROWS).double()[::2]
    store.load(5, into={"weight": weight, "sum": other})
    assert same({"weight": weight, "sum": other}, history[5])
    with pytest.raises(TradewindError, match="'weight' is float32 of shape"):
        store.load(5, into={"weight": torch.zeros(3, WIDTH), "sum": other})


def test_compaction_changes_no_bit(tmp_path: Path) -> None:
    """A compacted step has one base, the same content and id, and deltas go on from it."""
    store, history = chain(tmp_path)
    before = store.save(6, history[5], {})
    state = copy(history[5])
    after = store.compact(6)
    assert (after.id, after.full) == (before.id, True)
    assert same(store.load(6, id=before.id), state)
    store.save(7, state, change(state, torch.tensor([8]), 5))
    store.compact(3)  # an older step, while training goes on from the newest
    store.save(8, state, change(state, torch.tensor([9]), 6))
    store.prune(keep=[8])
    assert store.steps() == [8]
    assert same(DeltaStore(tmp_path).load(8), state)


def test_pruning_frees_the_space(tmp_path: Path) -> None:
    """What only dropped steps needed is deleted, and leftovers of killed writers with it."""
    store, history = chain(tmp_path)
    store.compact(5)
    (tmp_path / "chunks" / ".half.tmp").write_bytes(b"x")
    store.prune(keep=[5])
    left = sum(path.stat().st_size for path in (tmp_path / "chunks").iterdir())
    assert left == sum(table.nbytes for table in history[5].values())


def test_pruning_refuses_when_it_cannot_tell(tmp_path: Path) -> None:
    """When the manifest of a step to keep is damaged, no chunk is deleted."""
    store, _ = chain(tmp_path)
    manifest = tmp_path / "step-000000000005.json"
    manifest.write_bytes(manifest.read_bytes()[:-3])
    before = sorted((tmp_path / "chunks").iterdir())
    with pytest.raises(IntegrityError, match="step-000000000005"):
        store.prune(keep=[5])
    assert sorted((tmp_path / "chunks").iterdir()) == before
    assert store.steps() == [0, 1, 2, 3, 4, 5]


def test_any_flipped_bit_is_named(tmp_path: Path) -> None:
    """One bit flipped in any file of a step refuses the step and names the file."""
    store, _ = chain(tmp_path, steps=2, chunk_bytes=2048)
    draw = random.Random(0)
    files = [path for path in tmp_path.rglob("*") if path.is_file() and "step-" not in path.name]
    for path in [*files, tmp_path / "step-000000000002.json"]:
        raw = path.read_bytes()
        bad = bytearray(raw)
        bad[draw.randrange(len(bad))] ^= 1 << draw.randrange(8)
        path.write_bytes(bad)
        with pytest.raises(IntegrityError, match=path.name):
            store.load(2)
        with pytest.raises(IntegrityError, match=path.name):
            store.verify(2)
        path.write_bytes(raw)


def test_missing_and_overlong_chunks_are_named(tmp_path: Path) -> None:
    """A chunk that is gone, or has bytes too many or too few, is named."""
    store, _ = chain(tmp_path)
    chunk = max((tmp_path / "chunks").iterdir(), key=lambda path: path.stat().st_size)
    raw = chunk.read_bytes()
    for damage in (raw + b"1", raw[:-1], None):
        if damage is None:
            chunk.unlink()
        else:
            chunk.write_bytes(damage)
        told: list[str] = []
        store.latest(lambda _, error: told.append(str(error)))  # noqa: B023 - called before the next turn
        assert any(chunk.name in text for text in told)


def test_damaged_steps_are_passed_over(tmp_path: Path) -> None:
    """The newest whole step is taken, and what is wrong with newer ones is told."""
    store, _ = chain(tmp_path)
    (tmp_path / "step-000000000005.json").write_bytes(b"{}")
    told: list[int] = []
    assert store.latest(lambda step, error: told.append(step)) == 4
    assert told == [5]
    assert DeltaStore(tmp_path / "nothing").latest() is None


def test_a_rotten_chunk_is_not_relied_on(tmp_path: Path) -> None:
    """A chunk that would be shared but is damaged is written anew."""
    store, state = DeltaStore(tmp_path), {"t": torch.randn(100, 4)}
    store.save(1, state)
    chunk = next((tmp_path / "chunks").iterdir())
    chunk.write_bytes(bytes(chunk.stat().st_size))
    store.save(2, state)
    assert same(store.load(2), state)


def test_another_save_of_the_step_is_refused(tmp_path: Path) -> None:
    """A checkpoint that names the id of its deltas does not get those of another save of that step."""
    store, state = DeltaStore(tmp_path), tables()
    first = store.save(1, state)
    change(state, torch.tensor([3]), 1)
    second = store.save(1, state)
    assert same(store.load(1, id=second.id), state)
    with pytest.raises(IntegrityError, match="not the save of step 1 that was asked for"):
        store.resume(1, id=first.id)
    with pytest.raises(NotFoundError, match="step 9"):
        store.load(9)


def test_what_cannot_be_stored_is_refused(tmp_path: Path) -> None:
    """Rows outside the table and tensors without rows are refused, and nothing is committed."""
    store, state = DeltaStore(tmp_path), tables()
    store.save(1, state)
    with pytest.raises(TradewindError, match="rows 3 to 1000 of 'weight' were touched, but it has 1000"):
        store.save(2, state, {"weight": torch.tensor([3, 1000])})
    with pytest.raises(TradewindError, match="'count' has no rows"):
        store.save(2, {"count": torch.tensor(1.0)})
    assert store.steps() == [1]


def test_a_failed_save_can_be_repeated(tmp_path: Path) -> None:
    """After a save that failed the same rows are saved again, and the step is right."""
    store, state = DeltaStore(tmp_path), tables()
    store.save(1, state)
    rows = change(state, torch.tensor([3, 4]), 1)
    chunks = tmp_path / "chunks"
    chunks.rename(tmp_path / "away")
    chunks.touch()
    with pytest.raises(OSError, match="chunks"):
        store.save(2, state, rows)
    chunks.unlink()
    (tmp_path / "away").rename(chunks)
    store.save(2, state, rows)
    assert same(store.load(2), state)


def crash_history(folder: Path) -> tuple[list[Op], dict[int, dict[str, torch.Tensor]]]:
    """The operations of a base, deltas, a compaction and a pruning, and what each step holds."""
    draw, history, root = torch.Generator().manual_seed(3), {}, folder / "root"
    root.mkdir()
    state = {"t": torch.randn(60, 16, generator=draw)}
    with recording(Recorder(root, folder / "log")) as recorder:
        store = DeltaStore(root, chunk_bytes=1024)
        for step in range(1, 5):
            touched = change(state, torch.randint(60, (4,), generator=draw), step)
            history[step] = copy(state)
            store.save(step, state, touched)
            note(recorder, f"saved {step}")
        store.compact(4)
        store.prune(keep=[4])
    return read_log(folder / "log"), history


def test_no_crash_costs_a_step(tmp_path: Path) -> None:
    """Killed or without power at any operation, the newest saved step or the one being saved is whole."""
    ops, history = crash_history(tmp_path)
    disks = [Disk({}, journal=True), Disk({}, journal=False)]
    rng, returned, seen = random.Random(0), 0, set()
    for op in [*ops, Op("note", "end")]:
        states = [disks[0].killed(), *(disks[0].killed_in(part) for part in torn(op, rng, 2))]
        for tree in [*states, *(tree for disk in disks for tree in power_cuts(disk, rng, 3))]:
            key = hash((returned, *tree.items()))
            if key not in seen:
                restored_is_right(tree, tmp_path / "tried", returned, history)
            seen.add(key)
        for disk in disks:
            disk.apply(op)
        returned = int(op.path[6:]) if op.path.startswith("saved ") else returned
    assert disks[0].killed() == read_tree(tmp_path / "root")
    assert len(seen) > 100


def restored_is_right(
    tree: Tree, root: Path, returned: int, history: dict[int, dict[str, torch.Tensor]]
) -> None:
    """No step is damaged, and the newest is that whose save had returned, or newer."""
    write_tree(tree, root)
    store = DeltaStore(root)
    assert max([0, *store.steps()]) >= returned
    for step in store.steps():
        assert same(store.load(step), history[step])
