"""Programs as native code: the sizes they take, what they give, what they depend on."""

import subprocess
import sys

import pytest
import torch

from tests.services.compiled import WIDTH, build, write_small
from tradewind.models.compile import CompileError, axes, bounds, exported, lifted
from tradewind.models.compiled import Compiled
from tradewind.models.graph import from_json
from tradewind.models.manifest import Signature, Tensor
from tradewind.models.program import Program

pytestmark = pytest.mark.timeout(600)  # the first that asks for it waits for the compiler


def vector(symbol: str, low: int, high: int | None) -> Tensor:
    return Tensor(name="x", dtype="FP32", shape=(-1,), range=((low, high),), symbols=(symbol,))


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([("s", 0, None)], {"s": (1, None)}),
        ([("s", 2, 9)], {"s": (2, 9)}),
        ([("s", 1, None), ("s + 1", 3, 11)], {"s": (2, 10)}),
        ([("s", 1, 8), ("s - 2", 1, None)], {"s": (3, 8)}),
        ([("s", 1, 8), ("t", 4, None)], {"s": (1, 8), "t": (4, None)}),
    ],
)
def test_sizes_vary_as_the_signature_says(sizes, expected):
    """Where several inputs share a symbol, all of them are kept to."""
    signature = Signature(inputs=tuple(vector(*size) for size in sizes), outputs=())
    assert bounds(axes(signature)) == expected


@pytest.mark.parametrize(("symbol", "high", "why"), [("2*s", None, "size 2*s"), ("s", 1, "can only be 1")])
def test_what_cannot_be_stated_is_named(symbol, high, why):
    """Such a program stays as it is, and says so."""
    signature = Signature(inputs=(vector(symbol, 1, high),), outputs=())
    with pytest.raises(CompileError, match=r".*" + why.replace("*", r"\*")):
        bounds(axes(signature))


def asserting(message: str) -> Program:
    """A program whose graph, well-formed as it is, has a text for the compiler in it."""
    x, ok = {"node": "x"}, {"node": "ok"}
    nodes = [
        {"name": "ok", "target": "aten.all.default", "args": [x], "kwargs": {}},
        {"name": "checked", "target": "aten._assert_async.msg", "args": [ok, message], "kwargs": {}},
        {"name": "y", "target": "aten.add.Tensor", "args": [x, 1.0], "kwargs": {}},
    ]
    graph = {"format": 1, "inputs": ["x"], "weights": {}, "nodes": nodes, "outputs": [{"node": "y"}]}
    signature = Signature(inputs=(vector("s", 1, None),), outputs=(vector("s", 1, None),))
    return Program("asserting", from_json(graph, {}, source="here"), signature)


@pytest.mark.parametrize(
    "text", ['no"); std::system("id', "back\\slash", "two\nlines", "/*", "%s", "caf\u00e9"]
)
def test_no_text_of_a_package_becomes_code(text):
    """It is refused before it is anywhere near the compiler."""
    with pytest.raises(CompileError, match=r"checked: the text .* cannot be given to a compiler"):
        exported(asserting(text))


def test_plain_words_are_given_to_the_compiler():
    """Equations and names of modes are."""
    exported(asserting("bd,bkd->bk floor 1.5"))


@torch.no_grad()
def test_weights_come_first(tmp_path):
    """The lifted module has none of its own, and gives the same with those that it is given."""
    program = write_small(tmp_path / "small").program("score")
    module, names = lifted(program.graph_module)
    x = torch.randn(3, WIDTH)
    weights = [program.graph_module.get_buffer(name) for name in names]
    assert (len(names), list(module.buffers())) == (4, [])
    assert all(torch.equal(a, b) for a, b in zip(module(*weights, x), program(x), strict=True))


def jagged(lengths: list[int]) -> tuple[torch.Tensor, ...]:
    ends = torch.tensor([0, *lengths]).cumsum(0)
    return torch.randint(0, 50, (int(ends[-1]),)), ends, torch.randn(len(lengths))


@torch.inference_mode()
def test_every_batch_size_gives_what_eager_gives(compiled_once):
    """One row and none of a size it was compiled with; jagged rows of any lengths, empty ones among them."""
    torch.manual_seed(1)
    score, pool = (compiled_once.package.program(name) for name in ("score", "pool"))
    fast_score, fast_pool = (Compiled(compiled_once.library(p.name), p) for p in (score, pool))
    for rows in (*range(1, 20), 64, 333):
        x = torch.randn(rows, WIDTH)
        inputs = jagged([int(n) for n in torch.randint(0, 9, (rows,))] + [1])
        for fast, eager, given in ((fast_score, score, (x,)), (fast_pool, pool, inputs)):
            assert fast.fits(given)
            torch.testing.assert_close(fast(given), list(eager.graph_module(*given)))


@torch.inference_mode()
def test_inputs_are_read_where_they_lie(compiled_once):
    """A transposed view and a slice that begins in the middle are read as what they are."""
    program = compiled_once.package.program("score")
    fast = Compiled(compiled_once.library("score"), program)
    for x in (
        torch.randn(WIDTH, 5).T,
        torch.randn(WIDTH * 5 + 1)[1:].view(5, WIDTH),
        torch.randn(9, WIDTH)[::2],
    ):
        torch.testing.assert_close(fast((x,)), list(program.graph_module(x)))


@pytest.mark.parametrize(
    "inputs",
    [
        (torch.zeros(4, dtype=torch.int64), torch.zeros(4, dtype=torch.int64), torch.zeros(4)),
        (torch.zeros(4, dtype=torch.int64), torch.zeros(6, dtype=torch.int64), torch.zeros(4)),
        (torch.zeros(0, dtype=torch.int64), torch.zeros(5, dtype=torch.int64), torch.zeros(4)),
        (torch.zeros(4, dtype=torch.int32), torch.zeros(5, dtype=torch.int64), torch.zeros(4)),
        (torch.zeros(4, 1, dtype=torch.int64), torch.zeros(5, dtype=torch.int64), torch.zeros(4)),
        (torch.zeros((1 << 20) + 1, dtype=torch.int64), torch.zeros(5, dtype=torch.int64), torch.zeros(4)),
    ],
    ids=["offsets too short", "offsets too long", "no values", "dtype", "rank", "too many values"],
)
def test_what_it_was_not_compiled_for_does_not_fit(compiled_once, inputs):
    """It would read past the end of what it is given."""
    fast = Compiled(compiled_once.library("pool"), compiled_once.package.program("pool"))
    assert not fast.fits(inputs)


@torch.inference_mode()
def test_an_id_outside_the_table_is_an_error_and_no_end(compiled_once):
    """Again and again; what comes after it is answered."""
    program = compiled_once.package.program("pool")
    fast = Compiled(compiled_once.library("pool"), program)
    for bad in (50, -1, 1 << 40):
        with pytest.raises(RuntimeError, match="out of bounds"):
            fast((torch.tensor([1, bad]), torch.tensor([0, 2]), torch.ones(1)))
        with pytest.raises(RuntimeError, match="out of bounds"):
            fast(
                (torch.tensor([1, 2]), torch.tensor([0, min(bad - 99, 0)]), torch.ones(1))
            )  # which leave out values
        good = (torch.tensor([1, 2]), torch.tensor([0, 2]), torch.ones(1))
        torch.testing.assert_close(fast(good), list(program.graph_module(*good)))


@torch.inference_mode()
def test_versions_that_differ_in_weights_share_what_was_compiled(compiled_once, tmp_path):
    """The same key, and each runs on its own weights."""
    other = write_small(tmp_path / "other", seed=5)
    assert compiled_once.artefacts.folder.joinpath(
        type(compiled_once)(other, compiled_once.home).key("score")
    ).exists()
    program = other.program("score")
    x = torch.randn(3, WIDTH)
    fast = Compiled(compiled_once.library("score"), program)
    torch.testing.assert_close(fast((x,)), list(program.graph_module(x)))
    assert not torch.equal(fast((x,))[0], compiled_once.package.program("score")(x)[0])


def test_it_starts_no_thread(compiled_once):
    """Whatever the cores: a worker has the threads that it is given."""
    code = (
        "import os, sys, torch\n"
        "from tradewind.models import open_package\n"
        "from tradewind.models.compiled import Compiled\n"
        "package, library = sys.argv[1:]\n"
        "torch.set_num_threads(1)\n"
        "program = open_package(package).program('score')\n"
        "fast, x = Compiled(library, program), torch.randn(100_000, 16)\n"
        "before = len(os.listdir('/proc/self/task'))\n"
        "fast((x,))\n"
        "print(len(os.listdir('/proc/self/task')) - before)"
    )
    command = [
        sys.executable,
        "-c",
        code,
        str(compiled_once.package.path),
        str(compiled_once.library("score")),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "0"


def test_without_a_compiler_each_program_says_so(tmp_path):
    """And nothing is left behind."""
    package = write_small(tmp_path / "small")
    built = build(tmp_path / "home", package.path, CXX="nonesuch")
    assert [b.program for b in built] == ["pool", "score", "twin"]
    assert all("no C++ compiler (nonesuch)" in b.error for b in built)
    assert not list((tmp_path / "home" / "compiled").glob("*/program.so"))
