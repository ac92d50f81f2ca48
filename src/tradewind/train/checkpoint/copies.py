"""What a host has in its memory, as files: its own workers' images, copies of those of the host before, and borrowed ones."""

import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from tradewind.train.checkpoint import image

FOLDER = "mirror"
_NAME = re.compile(rf"local(\d+)-(\d+)-(\d+)\{image.SUFFIX}")


class Of(NamedTuple):
    """What images of all hosts must have in common to be one state; the newest is the largest."""

    step: int
    generation: int
    world: int
    layout: str


Version = tuple[int, int]
"""Step and generation."""
Set = list[tuple[Path, image.Header]]
"""The images of all workers of one host, after the same step."""


def path_of(folder: Path, local_rank: int, version: Version) -> Path:
    """Where the copy of one worker's image lies; `folder` is the memory of the host that holds it."""
    step, generation = version
    return folder / FOLDER / f"local{local_rank}-{generation}-{step}{image.SUFFIX}"


def drop(folder: Path, local_rank: int, keep: Collection[Version]) -> None:
    """Remove all copies of one worker's images but those of some versions."""
    for path in (folder / FOLDER).glob(f"local{local_rank}-*{image.SUFFIX}"):
        match = _NAME.fullmatch(path.name)
        if match is None or (int(match[3]), int(match[2])) not in keep:
            path.unlink(missing_ok=True)


def whole(paths: Iterator[Path]) -> Iterator[Set]:
    """The sets, among these files, to which no worker of their host is missing."""
    groups: dict[image.Header, dict[int, tuple[Path, image.Header]]] = {}
    for path in paths:
        header = image.peek(path)
        if header is not None:
            groups.setdefault(header.common(), {})[header.local_rank] = (path, header)
    for common, members in groups.items():
        if len(members) == common.local_world:
            yield [members[local_rank] for local_rank in sorted(members)]


def own(folder: Path) -> list[Set]:
    """What a host has whole of its own workers."""
    return list(whole(folder.glob(f"local*{image.SUFFIX}")))


def held(folder: Path) -> list[Set]:
    """What it has whole of the host before it."""
    return list(whole((folder / FOLDER).glob(f"*{image.SUFFIX}")))


def of(header: image.Header) -> Of:
    """What an image is of."""
    return Of(header.step, header.generation, header.world, header.layout)


def find(folder: Path, what: Of) -> dict[int, tuple[Path, image.Header]]:
    """What a host has of a state, of itself and of the host before, by rank."""
    found = (member for one in (*held(folder), *own(folder)) for member in one)
    return {header.rank: (path, header) for path, header in found if of(header) == what}
