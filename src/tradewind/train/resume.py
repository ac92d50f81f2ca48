"""Choose the checkpoint to resume from: the newest that every worker finds whole."""

from pathlib import Path

from tradewind.errors import IntegrityError
from tradewind.train import checkpoint
from tradewind.train.checkpoint.reader import folder_of
from tradewind.train.checkpoint.writer import clean
from tradewind.train.distributed import Peers
from tradewind.train.journal import Journal


def newest_whole(root: Path, peers: Peers, journal: Journal) -> tuple[Path, checkpoint.Loaded] | None:
    """The newest checkpoint that loads on every worker, or None when there is none at all.

    Raises an IntegrityError when there are checkpoints and none of them is whole: starting from
    nothing would throw away what a person may still be able to save.
    """
    if peers.rank == 0:
        clean(root)
    candidates: list[int] = peers.from_first(checkpoint.steps(root))
    damages = []
    for step in reversed(candidates):
        folder = folder_of(root, step)
        loaded, why = _try_load(folder, peers.rank)
        reasons = [reason for reason in peers.gather(why) if reason]
        if loaded is not None and not reasons:
            return folder, loaded
        damages.append(reasons[0])
        if peers.rank == 0:
            journal.write("damaged", path=folder, why=reasons[0])
    if damages:
        raise IntegrityError(
            f"no checkpoint in {root} is whole ({'; '.join(damages)}); restore one from a copy, or move "
            "the folder away to start from nothing"
        )
    return None


def _try_load(folder: Path, rank: int) -> tuple[checkpoint.Loaded | None, str | None]:
    try:
        return checkpoint.load(folder, rank, others=rank == 0), None
    except IntegrityError as error:
        return None, str(error)
