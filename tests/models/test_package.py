"""Package: what is written is what is read, and nothing else is."""

from collections.abc import Callable

import pytest
import torch

from tradewind import models
from tradewind.errors import NotFoundError, SpecError

Write = Callable[..., models.Package]


@pytest.mark.parametrize("lengths", [[1], [3], [2, 1], [4, 1, 7, 2], [1] * 40])
def test_a_packaged_program_gives_the_modules_own_outputs_at_other_sizes(
    lengths: list[int], write: Write, modules: dict[str, torch.nn.Module]
) -> None:
    """Dynamic dimensions stay dynamic, down to a batch of one, and outputs are bit-identical to eager."""
    encode = write().program("encode")
    values = torch.arange(sum(lengths)) % 20 + 1
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    assert torch.equal(encode(values, offsets), modules["encode"](values, offsets))
    assert torch.equal(encode(offsets=offsets, values=values), modules["encode"](values, offsets))


def test_run_gives_outputs_by_name(write: Write, modules: dict[str, torch.nn.Module]) -> None:
    """`run` takes and gives dicts keyed by the signature's names."""
    inputs = {"query": torch.rand(2, 8), "candidates": torch.randint(0, 21, (2, 7))}
    outputs = write().program("rank").run(inputs)
    assert torch.equal(outputs["scores"], modules["rank"](**inputs)["scores"])


def test_everything_else_that_was_written_is_read_back(write: Write) -> None:
    """Tensors, vocabularies, metrics, lineage and config survive the round trip."""
    package = models.open_package(write().path)
    assert torch.equal(package.tensors("items")["embedding"], torch.arange(168.0).reshape(21, 8))
    assert package.vocabulary("item")[:2] == ["", "item 1"]
    assert package.config == {"dimension": 8, "retrieve_k": 5}
    assert package.manifest.metrics == {"ndcg@10": 0.1}
    assert package.manifest.lineage == {"run": "r1"}


def test_the_signature_names_types_and_dynamic_dimensions(write: Write) -> None:
    """Inputs and outputs carry Open Inference Protocol types, and -1 where a size is free."""
    package = write()
    encode, rank = package.signature("encode"), package.signature("rank")
    assert [(t.name, t.dtype, t.shape) for t in encode.inputs] == [
        ("values", "INT64", (-1,)),
        ("offsets", "INT64", (-1,)),
    ]
    assert [(t.name, t.dtype, t.shape) for t in encode.outputs] == [("query", "FP32", (-1, 8))]
    assert [(t.name, t.shape) for t in rank.inputs] == [("query", (-1, 8)), ("candidates", (-1, -1))]
    assert [t.name for t in rank.outputs] == ["scores"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"query": torch.rand(2, 8, dtype=torch.float64)}, "'query' is FP64, not FP32"),
        ({"query": torch.rand(2, 7)}, "'query' has size 7 in dimension 1, not 8"),
        ({"query": torch.rand(8)}, r"'query' has shape \[8\]"),
        (
            {"query": torch.rand(3, 8)},
            "'candidates' has size 2 in dimension 0, not the 3 that goes with 'query'",
        ),
        ({"surprise": torch.rand(1)}, "no input 'surprise'"),
    ],
)
def test_inputs_that_do_not_fit_the_signature_are_named(
    changed: dict[str, torch.Tensor], message: str, write: Write
) -> None:
    """A wrong dtype, size, rank or name is a SpecError that says which."""
    program = write().program("rank")
    inputs = {"query": torch.rand(2, 8), "candidates": torch.ones(2, 3, dtype=torch.int64)}
    with pytest.raises(SpecError, match=message):
        program.run(inputs | changed)


def test_an_unknown_part_lists_the_parts_there_are(write: Write) -> None:
    """Asking for a program, tensor group or vocabulary that is not there lists those that are."""
    package = write()
    with pytest.raises(NotFoundError, match="it has encode, rank"):
        package.program("decode")
    with pytest.raises(NotFoundError, match="it has items"):
        package.tensors("users")
    with pytest.raises(NotFoundError, match="it has item"):
        package.vocabulary("user")
