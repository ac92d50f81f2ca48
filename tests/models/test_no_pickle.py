"""Loading a package runs no code from it: no pickle, no eval, no operator outside the closed set."""

import builtins
import io
import json
import pickle
import zipfile
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import sympy
import torch

from tradewind import models
from tradewind.errors import IntegrityError
from tradewind.models import graph
from tradewind.models.manifest import digest_of, seal

Write = Callable[..., models.Package]


def refuse(*args: Any, **kwargs: Any) -> Any:
    raise AssertionError("something was unpickled or evaluated")


def test_opening_and_running_a_package_unpickles_and_evaluates_nothing(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With every way into pickle, torch.load, torch.export.load, sympify and eval closed, all still works."""
    package = write(evaluation={"ndcg@10": torch.rand(5)})
    for owner, name in (
        *((pickle, n) for n in ("load", "loads", "Unpickler", "_Unpickler")),
        *((torch, n) for n in ("load", "save")),
        *((torch.export, n) for n in ("load", "save")),
        *((torch._C, n) for n in ("_pickle_load_obj", "_pickle_save")),
        *((torch.jit, "load"), (sympy, "sympify"), (builtins, "eval")),
    ):
        monkeypatch.setattr(owner, name, refuse)
    opened = models.open_package(package.path)
    scores = opened.program("rank").run(
        {"query": torch.ones(2, 8), "candidates": torch.ones(2, 3, dtype=torch.int64)}
    )
    assert scores["scores"].shape == (2, 3)
    assert opened.program("encode")(torch.tensor([1]), torch.tensor([0, 1])).shape == (1, 8)
    assert opened.tensors("items")
    assert opened.evaluation()


def test_no_file_of_a_package_is_a_pickle_or_an_archive(write: Write) -> None:
    """Files are JSON or safetensors; none is a zip archive, none starts like a pickle."""
    package = write()
    for path in package.path.rglob("*.*"):
        data = path.read_bytes()
        assert path.suffix in (".json", ".safetensors")
        assert not zipfile.is_zipfile(path)
        assert data[:1] != pickle.PROTO


class Bomb:
    """Unpickling it is noticed."""

    exploded = False

    def __reduce__(self) -> Any:
        return setattr, (Bomb, "exploded", True)


def payloads() -> dict[str, bytes]:
    """What an attacker would put where a program or its weights belong."""
    bomb = pickle.dumps(Bomb())
    saved, archive = io.BytesIO(), io.BytesIO()
    torch.save({"w": Bomb()}, saved)
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("archive/data/sample_inputs/model.pt", bomb)
        file.writestr("archive/models/model.json", "{}")
    length = len(bomb).to_bytes(8, "little")
    return {"pickle": bomb, "torch": saved.getvalue(), "pt2": archive.getvalue(), "header": length + bomb}


@pytest.mark.parametrize("kind", ["pickle", "torch", "pt2", "header"])
@pytest.mark.parametrize("name", ["programs/rank.json", "weights/rank.safetensors"])
def test_a_correctly_sealed_archive_with_a_pickle_inside_is_refused(
    kind: str, name: str, write: Write
) -> None:
    """Digests that match do not make a pickle acceptable: the file is named, and nothing runs."""
    package = reseal(write(), name, payloads()[kind])
    with pytest.raises(IntegrityError, match=name):
        package.program("rank")
    assert not Bomb.exploded
    pickle.loads(pickle.dumps(Bomb()))
    assert Bomb.exploded, "the bomb does work where it is unpickled"
    Bomb.exploded = False


def reseal(package: models.Package, name: str, data: bytes) -> models.Package:
    """The package with one file replaced and every digest made right again."""
    manifest = msgspec.structs.replace(
        package.manifest, files={**package.manifest.files, name: digest_of(data)}
    )
    (package.path / name).write_bytes(data)
    (package.path / "manifest.json").write_bytes(seal(manifest)[1])
    return models.open_package(package.path)


def node(target: str, *args: Any, name: str = "bad", **kwargs: Any) -> dict[str, Any]:
    return {"name": name, "target": target, "args": list(args), "kwargs": kwargs}


ATTACKS = {
    "torch.load": node("torch.load", "/tmp/x"),
    "hub": node("torch.hub.load", "/tmp/x", "y"),
    "eval": node("builtins.eval", "1"),
    "attrgetter": node("operator.attrgetter", "__class__"),
    "methodcaller": node("operator.methodcaller", "x"),
    "dunder": node("aten.__class__.default"),
    "dict": node("aten.__dict__.default"),
    "reads a file": node("aten.from_file.default", "/etc/passwd", False, 10),
    "writes a file": node("aten.save.default", 1, "/tmp/x"),
    "global state": node("aten.manual_seed.default", 1),
    "gradient mode": node("aten.set_grad_enabled.default", True),
    "prints": node("aten.warn.default", "x", 2),
    "changes a weight": node("aten.add_.Tensor", {"node": "query"}, 1),
    "another namespace": node("quantized.add.default"),
    "profiler": node("profiler._record_function_enter.default", "x"),
    "no overload": node("aten.add.Nothing"),
    "no operator": node("aten.no_such_operator.default"),
    "code in a name": node("aten.neg.default", {"node": "query"}, name="x = 1; import os #"),
    "newline in a name": node("aten.neg.default", {"node": "query"}, name="x\nimport os"),
    "keyword": node("aten.neg.default", {"node": "query"}, name="import"),
    "code in an argument's name": node("aten.neg.default", **{"x=print(1), y": 1}),
    "unknown node": node("aten.neg.default", {"node": "nobody"}),
    "later node": node("aten.neg.default", {"node": "bad"}),
    "twice": node("aten.neg.default", {"node": "query"}, name="query"),
    "unknown kind": node("aten.neg.default", {"pickle": "gASV"}),
    "unknown dtype": node("aten.neg.default", {"dtype": "__class__"}),
    "not a float": node("aten.neg.default", {"float": "__import__('os')"}),
    "no arguments": {"name": "bad", "target": "aten.neg.default"},
    "not a node": 7,
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_crafted_graph_is_refused_when_it_is_loaded(attack: str, write: Write) -> None:
    """Operators outside the closed set, side effects and text that would become code are all refused."""
    package = write()
    encoded = json.loads((package.path / "programs/rank.json").read_bytes())
    encoded["nodes"].append(ATTACKS[attack])
    package = reseal(package, "programs/rank.json", json.dumps(encoded).encode())
    with pytest.raises(IntegrityError, match=r"programs/rank\.json: not a program graph"):
        package.program("rank")


@pytest.mark.parametrize(
    "changed",
    [
        {"format": 2},
        {"weights": {"p_items_weight": "items.weight'); import os; ('"}},
        {"weights": {"p_items_weight": "no.such.tensor"}},
        {"weights": {"x y": "items.weight"}},
        {"inputs": ["query", "candidates=print(1)"]},
        {"inputs": ["query", "query", "candidates"]},
        {"inputs": 7},
        {"nodes": None},
        {"outputs": [{"node": "nobody"}]},
    ],
    ids=str,
)
def test_a_graph_whose_tables_are_crafted_is_refused(changed: dict[str, Any], write: Write) -> None:
    """Inputs, weights and outputs are checked like nodes are."""
    package = write()
    encoded = json.loads((package.path / "programs/rank.json").read_bytes()) | changed
    package = reseal(package, "programs/rank.json", json.dumps(encoded).encode())
    with pytest.raises(IntegrityError, match=r"programs/rank\.json"):
        package.program("rank")


def test_text_in_an_argument_stays_text(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """A string that would be code if it were pasted into the generated function reaches the operator as text."""
    package = write()
    encoded = json.loads((package.path / "programs/rank.json").read_bytes())
    equation = "bd,bkd->bk', []); print('pasted'); ('"
    encoded["nodes"] = [n for n in encoded["nodes"] if "einsum" not in n["target"]]
    encoded["nodes"].append(node("aten.einsum.default", equation, [{"node": "query"}], name="einsum"))
    package = reseal(package, "programs/rank.json", json.dumps(encoded).encode())
    monkeypatch.setattr(builtins, "print", refuse)
    with pytest.raises(RuntimeError, match="einsum"):
        package.program("rank")(torch.ones(1, 8), torch.ones(1, 1, dtype=torch.int64))


def test_a_graph_nested_without_end_is_refused(write: Write) -> None:
    """Deep nesting is a refusal, not a crash."""
    data = (
        b'{"format":1,"inputs":[],"weights":{},"nodes":' + b"[" * 200_000 + b"]" * 200_000 + b',"outputs":[]}'
    )
    package = reseal(write(), "programs/rank.json", data)
    with pytest.raises(IntegrityError, match=r"programs/rank\.json"):
        package.program("rank")


def test_every_function_of_the_closed_set_survives_the_round_trip() -> None:
    """Names of the closed set resolve to the functions they name."""
    for name, function in graph._FUNCTIONS.items():
        assert graph._target(name) is function
        assert graph._target_name(function) == name
