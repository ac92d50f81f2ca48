"""Lays a run's code out in a pod from a blob store: the way of code that is too large for ConfigMaps.

usage: python -m tradewind.launch.kubernetes.fetch DIGEST DEST CHECKPOINTS [ELSEWHERE]

The store is $TRADEWIND_BLOBS; the rest is as in `unpack.py`.
"""

import sys
from pathlib import Path

from tradewind.errors import IntegrityError, NotFoundError
from tradewind.launch.kubernetes.unpack import make_checkpoints
from tradewind.launch.snapshot import checkout
from tradewind.names import ExitCode
from tradewind.store import open_blobs


def main(digest: str, dest: str, checkpoints: str, elsewhere: str = "") -> int:
    """Check the snapshot out and say so; what no retry mends ends with 65."""
    try:
        tree = checkout(digest, open_blobs(), Path(dest))
    except (IntegrityError, NotFoundError) as error:
        print(f"tradewind: the code cannot be laid out: {error}", file=sys.stderr)
        return ExitCode.DO_NOT_RETRY
    make_checkpoints(checkpoints, elsewhere)
    print(f"tradewind: laid out {len(tree.entries)} files of {digest}")
    return ExitCode.OK


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:5]))
