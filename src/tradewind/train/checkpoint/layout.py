"""Where in an image every file and every tensor lies: computed once, used while the state keeps its form."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from tradewind.train.checkpoint import parts, sums
from tradewind.train.checkpoint.image import PAGE, room
from tradewind.train.checkpoint.parts import Worker
from tradewind.train.checkpoint.recall import Recall, form_of
from tradewind.train.checkpoint.tensorfile import Located, layout
from tradewind.train.checkpoint.tree import Flattener, to_json


@dataclass
class State:
    """A worker's state, taken apart: the trees as JSON and the tensors they name."""

    shared: Flattener
    own: Flattener
    trees: dict[str, bytes]
    """The JSON files, by name."""
    form: tuple[Any, ...]
    """What a layout depends on, the length of the trees apart."""

    @classmethod
    def take(
        cls, rank: int, shared: Mapping[str, Any], own: Mapping[str, Any], recall: Recall | None = None
    ) -> "State":
        """Flatten; copies nothing."""
        of_all, tree, form = (recall or Recall()).take(dict(shared))
        of_one = Flattener()
        own_tree = to_json(of_one.encode(dict(own)))
        trees = {parts.SHARED_TREE: tree, parts.own_name(rank, "json"): own_tree}
        return cls(of_all, of_one, trees, (form, form_of(of_one)))


@dataclass(frozen=True)
class TensorFile:
    """A safetensors file in an image, of shared tensors or of the worker's own."""

    name: str
    at: int
    size: int
    head: bytes
    located: list[Located]
    is_own: bool


@dataclass
class Layout:
    """The plan of one worker's image."""

    form: tuple[Any, ...]
    digest: str
    seal_at: int
    size: int
    trees: dict[str, tuple[int, int]] = field(default_factory=dict)
    """First byte and room of each JSON file."""
    files: list[TensorFile] = field(default_factory=list)

    @classmethod
    def plan(cls, worker: Worker, state: State) -> "Layout":
        """Lay out the files of a worker, each at a multiple of the page size."""
        held = {name: (pieces, False) for name, pieces in parts.stored_by(worker, state.shared).items()}
        held[parts.own_name(worker.rank, "safetensors")] = (parts.whole_pieces(state.own.tensors), True)
        files = {name: (*layout(pieces), is_own) for name, (pieces, is_own) in held.items()}
        rooms = {name: _room(text) for name, text in state.trees.items()}
        chunks = sum(
            sums.num_chunks(size) for size in [*rooms.values(), *(file[2] for file in files.values())]
        )
        seal_at, at = room(len(rooms) + len(files), chunks)
        plan = cls(state.form, parts.digest(state.shared), seal_at, at)
        for name, size in rooms.items():
            plan.trees[name] = (plan._add(size), size)
        for name, (head, located, size, is_own) in files.items():
            plan.files.append(TensorFile(name, plan._add(size), size, head, located, is_own))
        return plan

    def _add(self, size: int) -> int:
        at = self.size
        self.size += -(-size // PAGE) * PAGE
        return at

    def fits(self, state: State) -> bool:
        """Whether the state has this layout's form, so that it can be copied into place."""
        return (
            all(len(text) <= self.trees[name][1] for name, text in state.trees.items())
            and self.form == state.form
        )

    def targets(self, memory: torch.Tensor) -> list[torch.Tensor]:
        """Where in an image, given as bytes, each tensor goes, in the order of `sources`."""
        return [
            memory[file.at + it.offset : file.at + it.offset + it.piece.nbytes]
            .view(it.piece.dtype)
            .view(it.piece.shape)
            for file in self.files
            for it in file.located
        ]

    def sources(self, state: State) -> list[torch.Tensor]:
        """The tensors, or rows of them, to be copied."""
        return [
            parts.source(it.piece, state.own.tensors if file.is_own else state.shared.tensors)
            for file in self.files
            for it in file.located
        ]


def _room(text: bytes) -> int:
    # Numbers in it grow a digit now and then; that must not move the tensors.
    return -(-(len(text) * 5 // 4 + 1024) // PAGE) * PAGE
