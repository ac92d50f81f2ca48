"""Which rows of a table have changed since they were last asked for: told, or found out by hashing."""

import hashlib

import torch
from torch import nn

from tradewind.errors import TradewindError


class RowTracker:
    """Rows that somebody says were touched; a byte a row, on the device where the indices are.

    Right only when nothing changes a row that was not touched. Sparse and row-wise optimizers keep to
    that; dense Adam, momentum or weight decay change every row: use ChunkHashes there.
    """

    def __init__(self, rows: int, device: torch.device | str = "cpu") -> None:
        self._marks = torch.zeros(rows, dtype=torch.bool, device=device)

    def touch(self, indices: torch.Tensor) -> None:
        """Mark rows; repeated ones are fine, and nothing waits for the device."""
        self._marks[indices.detach().reshape(-1).to(self._marks.device)] = True

    def touch_gradient(self, parameter: torch.Tensor) -> None:
        """Mark the rows in which a parameter has a sparse gradient; call it before the optimizer's step."""
        gradient = parameter.grad
        if gradient is None:
            return
        if not gradient.is_sparse:
            raise TradewindError(
                "a dense gradient does not say which rows it touches: build the embedding with "
                "sparse=True, call touch() with the indices, or use ChunkHashes"
            )
        self.touch(gradient._indices()[0])

    def watch(self, module: nn.Module) -> None:
        """Mark the rows that an `nn.Embedding` or `nn.EmbeddingBag` looks up while it trains."""

        def observe(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            if module.training:
                self.touch(inputs[0])

        module.register_forward_pre_hook(observe)

    def take(self) -> torch.Tensor:
        """The rows touched since the last `take`, ascending; later touches count for the next."""
        marks, self._marks = self._marks, torch.zeros_like(self._marks)
        return marks.nonzero().reshape(-1).cpu()

    def give_back(self, rows: torch.Tensor) -> None:
        """Mark rows again that were taken for a save that failed."""
        self.touch(rows)


class ChunkHashes:
    """Rows found to have changed, by sha256 over neighbours that together have about `chunk_bytes`.

    For tables that nobody watches. Every `take` reads the whole table; smaller chunks say more
    exactly which rows, and keep more digests: 32 bytes a chunk.
    """

    def __init__(self, table: torch.Tensor, chunk_bytes: int = 1024) -> None:
        self._rows = max(1, chunk_bytes // max(1, table.nbytes // max(1, len(table))))
        self._digests = self._hash(table)

    def take(self, table: torch.Tensor) -> torch.Tensor:
        """All rows of the chunks that changed since the last `take`, ascending."""
        digests = self._hash(table)
        pairs = enumerate(zip(digests, self._digests, strict=True))
        changed = torch.tensor([number for number, (new, old) in pairs if new != old], dtype=torch.int64)
        self._digests = digests
        rows = (changed[:, None] * self._rows + torch.arange(self._rows)).reshape(-1)
        return rows[rows < len(table)]

    def give_back(self, rows: torch.Tensor) -> None:
        """Find rows changed again that were taken for a save that failed."""
        for number in torch.unique(rows // self._rows).tolist():
            self._digests[number] = b""

    def _hash(self, table: torch.Tensor) -> list[bytes]:
        # In pieces: a table on a device need not fit into host memory twice.
        at_once = max(1, (64 << 20) // max(1, table.nbytes // max(1, len(table))) // self._rows) * self._rows
        digests: list[bytes] = []
        for start in range(0, len(table), at_once):
            piece = table[start : start + at_once].detach().cpu().contiguous()
            data = piece.reshape(-1).view(torch.uint8).numpy().data
            step = max(1, self._rows * (piece.nbytes // len(piece)))
            digests += [hashlib.sha256(data[at : at + step]).digest() for at in range(0, len(data), step)]
        return digests
