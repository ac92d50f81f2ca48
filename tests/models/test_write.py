"""Writing a package: what cannot be read back is refused before anything is written."""

import math
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.export import ExportedProgram, export

from tradewind import models
from tradewind.errors import SpecError
from tradewind.models.write import place

Write = Callable[..., models.Package]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"metrics": {"ndcg@10": math.nan}}, r"metrics\['ndcg@10'\] is nan"),
        ({"config": {"a": {"b": [1, math.inf]}}}, r"config\['a'\]\['b'\]\[1\] is inf"),
        ({"config": {"k": np.float32(1)}}, r"config\['k'\].*float32"),
        ({"config": {"k": 2**70}}, r"config\['k'\]"),
        ({"config": {1: "x"}}, "config has the key 1"),
        ({"lineage": {"at": pathlib.Path("x")}}, r"lineage\['at'\]"),
        ({"tensors": {"../x": {}}}, r"'\.\./x' names a file"),
        ({"vocabularies": {"a/b": []}}, "'a/b' names a file"),
        ({"task": "translate"}, "'translate' is not one of generic, recommend"),
        ({"outputs": {"rank": ["a", "b"]}}, "do not name the program's 1 outputs"),
    ],
)
def test_what_json_or_a_path_cannot_hold_is_refused(
    changed: dict[str, Any], message: str, write: Write, tmp_path: pathlib.Path
) -> None:
    """The part at fault is named, and no folder is left behind."""
    with pytest.raises(SpecError, match=message):
        write(**changed)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_written_once(write: Write, exported: dict[str, ExportedProgram]) -> None:
    """An existing folder is never written into."""
    package = write()
    with pytest.raises(FileExistsError):
        models.write_package(package.path, name="small", programs=exported)
    assert models.open_package(package.path).digest == package.digest


def test_a_package_that_cannot_be_written_whole_leaves_nothing(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that fills up half-way leaves no folder and no temporary one."""
    synced = []

    def full(descriptor: int) -> None:
        synced.append(descriptor)
        if len(synced) == 2:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        place(tmp_path / "package", {"a": b"1", "b": b"2"}, b"{}")
    assert len(synced) == 2
    assert list(tmp_path.iterdir()) == []


class Many(nn.Module):
    """Tied weights, a buffer that is not saved, a constant, no_grad, infinities, and nested sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Linear(4, 4)
        self.right = nn.Linear(4, 4)
        self.right.weight = self.left.weight
        self.norm = nn.BatchNorm1d(4)
        self.register_buffer("scale", torch.rand(4), persistent=False)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> dict[str, torch.Tensor]:
        with torch.no_grad():
            y = self.norm(self.right(torch.relu(self.left(x)))) * self.scale + torch.tensor(
                [1.0, 2.0, 3.0, 4.0]
            )
        y = y.masked_fill(~mask.unsqueeze(1), -torch.inf)
        halves = y.reshape(y.shape[0] * 2, 2).to(torch.float64).chunk(2, dim=1)
        positions = torch.arange(x.shape[0], device=x.device, dtype=torch.int64)
        return {"scores": torch.softmax(y, 1), "halves": halves[1], "positions": positions}


def export_many(module: nn.Module) -> ExportedProgram:
    batch = torch.export.Dim("B", min=1, max=1000)
    inputs = torch.rand(3, 4), torch.tensor([True, False, True])
    with torch.fx.experimental._config.patch(backed_size_oblivious=True):
        return export(module, inputs, dynamic_shapes=({0: batch}, {0: batch}))


def test_programs_of_many_shapes_and_kinds_survive(tmp_path: pathlib.Path) -> None:
    """Each construct gives bit-identical outputs, at other sizes, and tied weights are stored once."""
    torch.manual_seed(1)
    module = Many().eval()
    package = models.write_package(tmp_path / "many", name="many", programs={"main": export_many(module)})
    program = package.program("main")
    for size in (1, 2, 17):
        x, mask = torch.rand(size, 4), torch.rand(size) > 0.3
        expected = module(x, mask)
        outputs = program.run({"x": x, "mask": mask})
        assert outputs.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(outputs[name], value, rtol=0, atol=0, equal_nan=True)
    assert sum(v.numel() == 16 for v in program.state_dict().values()) == 1
    outputs_of = {t.name: (t.dtype, t.shape) for t in package.signature("main").outputs}
    assert outputs_of == {
        "scores": ("FP32", (-1, 4)),
        "halves": ("FP64", (-1, 1)),
        "positions": ("INT64", (-1,)),
    }


class Counts(nn.Module):
    """Changes a buffer at every call."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls.add_(1)
        return x + self.calls


class Writes(nn.Module):
    """Changes its input."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.add_(1)


class Branches(nn.Module):
    """Holds a graph inside its graph."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cond(x.sum() > 0, lambda v: v + 1, lambda v: v - 1, (x,))


@torch.library.custom_op("tradewind_test::twice", mutates_args=())
def twice(x: torch.Tensor) -> torch.Tensor:
    return x * 2


@twice.register_fake
def _(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


class Custom(nn.Module):
    """Calls an operator that torch does not come with."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return twice(x)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Counts(), "writes to 'calls'"),
        (Writes(), "writes to 'x'"),
        (Branches(), "control flow cannot be packaged"),
        (Custom(), "twice.*cannot be packaged"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_program_that_keeps_state_or_leaves_the_closed_set_is_refused(
    module: nn.Module, message: str, tmp_path: pathlib.Path
) -> None:
    """The error says what it does that a served program may not."""
    program = export(module, (torch.rand(2),))
    with pytest.raises(SpecError, match=message):
        models.write_package(tmp_path / "x", name="x", programs={"main": program})
    assert not (tmp_path / "x").exists()
