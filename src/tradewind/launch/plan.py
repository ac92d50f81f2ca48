"""What a run will ask for and whether it fits here, before anything is written."""

from __future__ import annotations

import os
from pathlib import Path

from tradewind.errors import SpecError
from tradewind.launch.files import list_files, project_root
from tradewind.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tradewind.launch.file import File
    from tradewind.spec import RunSpec


class Asked(Record):
    """What a plan looks at of a RunSpec that says nothing of resources, with the same defaults."""

    script: str
    args: tuple[str, ...] = ()
    workers: int = 1
    name: str | None = None
    max_restarts: int = 3
    hosts: int = 1
    resources: None = None


class Plan(Record):
    """One run, worked out: what is executed, from which files, with which resources."""

    name: str
    script: str
    """Relative to `workdir`."""
    args: tuple[str, ...]
    root: str
    """The folder whose content is snapshotted."""
    workdir: str
    """Where the script runs, relative to `root`."""
    workers: int
    max_restarts: int
    files: int
    size_mib: float
    cpus: float
    """CPUs asked for, over all workers."""
    notes: tuple[str, ...] = ()
    """What does not fit, or is worth knowing."""


def plan(spec: RunSpec | Asked, cwd: Path | None = None, *, elsewhere: bool = False) -> Plan:
    """Work out what of `spec` would run and from which files.

    Writes nothing. What does not fit on this machine is noted, unless it is meant to run `elsewhere`. Raises SpecError when the script is not a file.
    """
    return survey(spec, cwd, elsewhere=elsewhere)[0]


def survey(
    spec: RunSpec | Asked, cwd: Path | None = None, *, elsewhere: bool = False
) -> tuple[Plan, list[File]]:
    """The plan, and the files that were found for it: a snapshot need not look for them again."""
    here = (cwd or Path.cwd()).resolve()
    script = (here / spec.script).resolve()
    if not script.is_file():
        raise SpecError(f"script: {spec.script} is not a file in {here}; give the path of a Python script")
    root = project_root(script, here)
    workdir = here if here.is_relative_to(root) else script.parent
    files = list_files(root)
    size = sum(f.size for f in files)
    if str(script.relative_to(root)) not in {f.path for f in files}:
        raise SpecError(
            f"script: {spec.script} is ignored by git, so it is not part of the snapshot; un-ignore it"
        )
    worked_out = Plan(
        name=spec.name or script.stem,
        script=os.path.relpath(script, workdir),
        args=spec.args,
        root=str(root),
        workdir=str(workdir.relative_to(root)),
        workers=spec.workers,
        max_restarts=spec.max_restarts,
        files=len(files),
        size_mib=size / 2**20,
        cpus=cpus_of(spec),
        notes=() if elsewhere else tuple(notes(spec)),
    )
    return worked_out, files


def notes(spec: RunSpec | Asked) -> list[str]:
    """What of the request this machine cannot give."""
    found = []
    if spec.hosts > 1:
        found.append(f"asks for {spec.hosts} hosts: all {spec.workers} workers run on this one")
    have = len(os.sched_getaffinity(0))
    need = cpus_of(spec)
    if need > have:
        found.append(f"asks for {need:g} CPUs, this machine has {have}: workers will share them")
    if spec.resources is None:
        return found
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    need_gib = spec.workers * (spec.resources.memory_gib or 0.0)
    if need_gib > memory_gib:
        found.append(f"asks for {need_gib:g} GiB of memory, this machine has {memory_gib:.1f}")
    gpus, need_gpus = gpus_here(), spec.workers * spec.resources.gpus
    if need_gpus > gpus:
        found.append(f"asks for {need_gpus} GPUs, this machine has {gpus}")
    return found


def cpus_of(spec: RunSpec | Asked) -> float:
    """CPUs of all workers; one for each unless it says otherwise."""
    return spec.workers * ((spec.resources and spec.resources.cpus) or 1.0)


def gpus_here() -> int:
    """How many GPUs of NVIDIA this machine has."""
    return sum(name.startswith("nvidia") and name[6:7].isdecimal() for name in os.listdir("/dev"))
