"""What a run would be on a cluster, without one: the plan of a dry run, and manifests for GitOps."""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from tradewind.launch.kubernetes.code import Code, pack
from tradewind.launch.kubernetes.context import Context, load_context
from tradewind.launch.kubernetes.manifests import Manifest, manifests
from tradewind.launch.kubernetes.pod import checkpoints
from tradewind.launch.kubernetes.request import (
    Capabilities,
    Request,
    for_pods,
    host_resources,
    make_request,
    shared_memory,
)
from tradewind.launch.kubernetes.targets import render
from tradewind.launch.local import as_stored
from tradewind.launch.plan import Plan, plan
from tradewind.launch.snapshot import snapshot_of
from tradewind.spec import RunSpec

if TYPE_CHECKING:
    from tradewind.store import Blobs

NOT_PLAIN = re.compile(r"(?i)[-+.\d][\w.+:-]*|y|n")
"""Texts that other readers of YAML take for numbers or truth values: an id may be `123456789e12`."""


class Preview(msgspec.Struct, frozen=True, kw_only=True):
    """One run, worked out for a cluster: what is executed, from which files, on which hosts."""

    name: str
    on: str
    script: str
    args: tuple[str, ...]
    root: str
    workdir: str
    files: int
    size_mib: float
    image: str
    hosts: int
    workers: int
    host: dict[str, str]
    """What each host asks for, by the cluster's names."""
    shared_memory: str
    gang: str
    """How all hosts start or none; the cluster may turn out to have better means."""
    grace_s: int
    checkpoints: str
    max_restarts: int
    objects: tuple[str, ...]
    notes: tuple[str, ...] = ()


def preview(spec: RunSpec, on: str, cwd: Path | None = None) -> Preview:
    """Work out `spec` for the cluster that `on` names; asks no cluster and writes nothing."""
    context = load_context(on)
    worked_out = plan(spec, cwd, elsewhere=True)
    return preview_of(request_of(spec, worked_out, Code(digest=""), context, run="0" * 12), worked_out, on)


def preview_of(request: Request, worked_out: Plan, on: str) -> Preview:
    """A run that is worked out already, as people read it."""
    spec = request.spec
    return Preview(
        name=worked_out.name,
        on=on,
        script=worked_out.script,
        args=spec.args,
        root=worked_out.root,
        workdir=worked_out.workdir,
        files=worked_out.files,
        size_mib=worked_out.size_mib,
        image=request.image,
        hosts=spec.hosts,
        workers=spec.workers,
        host=host_resources(request),
        shared_memory=shared_memory(request) or "up to the memory of the host",
        gang=request.gang,
        grace_s=request.grace_s,
        checkpoints=checkpoints(request) or "with the pod",
        max_restarts=spec.max_restarts,
        objects=tuple(dict.fromkeys(manifest["kind"] for manifest in manifests(request))),
        notes=tuple(notes(request)),
    )


def request_of(
    spec: RunSpec,
    worked_out: Plan,
    code: Code,
    context: Context,
    run: str,
    capabilities: Capabilities | None = None,
) -> Request:
    """A run as it would be asked of a cluster with these capabilities, or of one of which nothing is known."""
    return make_request(
        run=run,
        name=worked_out.name,
        spec=spec,
        stored=for_pods(as_stored(spec, worked_out)),
        code=code,
        context=context,
        capabilities=capabilities,
    )


def notes(request: Request) -> Iterator[str]:
    """What is worth knowing before the run costs something."""
    if checkpoints(request) is None:
        yield "checkpoints end with their pod: name a volume and `run_root` in the context"
    if request.spec.resources.memory_gib is None:
        yield "no memory is asked for, so the hosts are the first to be evicted from a node that is short of it"
    if "@sha256:" not in request.image:
        yield f"the image {request.image} is named without a digest: `rerun` may get another one of that name"
    if request.gang == "barrier":
        yield "without gangs or a queue, hosts that start wait for the others until the start deadline"


def rendered(
    spec: RunSpec, target: str, on: str, blobs: "Blobs | None" = None, cwd: Path | None = None
) -> list[Manifest]:
    """The objects of a run for GitOps, code included; the same input gives the same objects."""
    context = load_context(on)
    worked_out, digest, blobs = snapshot_of(spec, blobs, cwd, elsewhere=True)
    code = pack(digest, blobs)
    first = request_of(spec, worked_out, code, context, run="0" * 12)
    told = msgspec.json.encode([target, first.stored, digest, context], order="deterministic")
    run = hashlib.sha256(told).hexdigest()[:12]
    return render(target, msgspec.structs.replace(first, run=run))


def to_yaml(objects: list[Manifest]) -> str:
    """The objects as one YAML stream, texts of several lines as they are."""
    import yaml

    class Dumper(yaml.SafeDumper):
        """Writes texts of several lines as blocks."""

    def text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
        style = "|" if "\n" in value else "'" if NOT_PLAIN.fullmatch(value) else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)

    Dumper.add_representer(str, text)
    Dumper.ignore_aliases = lambda self, data: True  # type: ignore[method-assign]
    return yaml.dump_all(objects, Dumper=Dumper, sort_keys=False, explicit_start=True, width=110)
