"""A run as a SkyPilot task: hosts on whatever cloud SkyPilot finds, recovered as one of its managed jobs.

The task mounts a folder with the run's description and code, lays the code out on every node, and starts one agent
on each. SkyPilot says who the nodes are; when one is lost it starts all of them anew, and the run goes on from its
last checkpoint, which therefore has to lie in a bucket or on a volume.
"""

import hashlib
import math
import os
import re
import secrets
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from tradewind import names
from tradewind.errors import ClusterError, MissingExtraError, SpecError
from tradewind.launch.kubernetes import unpack
from tradewind.launch.local import as_stored
from tradewind.launch.ray.package import parcel
from tradewind.launch.snapshot import snapshot_of
from tradewind.names import ExitCode
from tradewind.spec import Placement, RunSpec, Spec, load_yaml
from tradewind.spec.placement import over

if TYPE_CHECKING:
    from tradewind.store import Blobs

KIND = "sky"
PORT = 29400
PARTS, RUN_DIR = "~/tradewind/parts", "~/tradewind/run"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
SCRIPT = """set -e
parts={parts}; run={run}
{python} -I $parts/unpack.py $parts $run/code $run/checkpoints{elsewhere}
mkdir -p $run/code/{workdir}
export {host}=$SKYPILOT_NODE_RANK
export {hosts}=$(echo "$SKYPILOT_NODE_IPS" | sed 's/$/:{port}/' | paste -sd, -)
export {address}=$(echo "$SKYPILOT_NODE_IPS" | sed -n "$((SKYPILOT_NODE_RANK + 1))p")
exec {python} -P -m tradewind.agent.fleet $parts/run.json $run
"""


class SkyContext(Spec, frozen=True, kw_only=True):
    """What holds for every run on SkyPilot; `contexts/sky.yaml`, or `contexts/NAME.yaml` for `--on sky:NAME`."""

    infra: str | None = "kubernetes"
    """SkyPilot's word for where: `kubernetes`, `kubernetes/CONTEXT`, `aws/us-east-1`, ...; None for anywhere."""
    placement: Placement = Placement()
    """Of which SkyPilot is told the image."""
    use_spot: bool = False
    buckets: dict[str, str] = msgspec.field(default_factory=dict)
    """Folder on every node -> URL of the bucket that is mounted there."""
    run_root: str | None = None
    """Folder below one of `buckets` for the checkpoints of runs; without it a lost node takes them along."""
    env: dict[str, str] = msgspec.field(default_factory=dict)
    python: str = "python"


def load_sky_context(on: str) -> SkyContext:
    """The context that `--on sky` or `--on sky:NAME` means; raises SpecError for what is neither."""
    from tradewind.store import home

    kind, _, name = on.partition(":")
    if kind != KIND or (name and not _NAME.fullmatch(name)):
        raise SpecError(f"--on {on}: there is no such place; write sky, or sky:NAME for contexts/NAME.yaml")
    path = home() / "contexts" / f"{name or KIND}.yaml"
    if path.exists():
        return load_yaml(path, SkyContext)
    if name:
        raise SpecError(f"--on {on}: there is no {path}; write it, or say only `sky`")
    return SkyContext()


def rendered(spec: RunSpec, on: str, blobs: "Blobs | None" = None, cwd: Path | None = None) -> dict[str, Any]:
    """The task of a run, its parcel written below Tradewind's home; the same input gives the same task."""
    from tradewind.store import home

    context = load_sky_context(on)
    worked_out, digest, blobs = snapshot_of(spec, blobs, cwd, elsewhere=True)
    stored = {key: value for key, value in as_stored(spec, worked_out).items() if key != "root"}
    run_id = hashlib.sha256(
        msgspec.json.encode([stored, digest, context], order="deterministic")
    ).hexdigest()[:12]
    about = {"id": run_id, "name": worked_out.name, "snapshot": digest, "spec": stored}
    folder = home() / "sky" / run_id
    write(folder, parcel(about, digest, blobs))
    return task(spec, worked_out.name, run_id, worked_out.workdir, context, folder)


def write(folder: Path, files: Mapping[str, bytes]) -> None:
    """The parcel as a folder, with the program that lays the code out."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    shutil.copy(unpack.__file__, folder / "unpack.py")


def task(
    spec: RunSpec, name: str, run_id: str, workdir: str, context: SkyContext, parts: Path
) -> dict[str, Any]:
    """The task as SkyPilot's YAML has it."""
    mounted = {path: {"source": url, "mode": "MOUNT"} for path, url in context.buckets.items()}
    found: dict[str, Any] = {
        "name": f"{slug(name)}-{run_id}",
        "num_nodes": spec.hosts,
        "resources": resources(spec, context),
        "file_mounts": {PARTS: str(parts), **mounted},
        "envs": {"PYTHONUNBUFFERED": "1", **context.env},
        "run": script(spec, run_id, workdir, context),
    }
    if spec.hosts > 1:
        found["secrets"] = {names.ENV_TOKEN: None}
    return found


def resources(spec: RunSpec, context: SkyContext) -> dict[str, Any]:
    """What each host is asked for, and that the run is started again where that may help."""
    need, workers = spec.resources, spec.workers_per_host
    image = over(spec.placement, context.placement).image
    if need.gpus and not need.gpu_type:
        raise SpecError(
            "resources.gpu_type: SkyPilot chooses machines by the type of GPU; name one, such as H100"
        )
    found = {
        "infra": context.infra,
        "accelerators": f"{need.gpu_type}:{need.gpus * workers}" if need.gpus else None,
        "cpus": f"{math.ceil(need.cpus * workers)}+" if need.cpus else None,
        "memory": f"{math.ceil(need.memory_gib * workers)}+" if need.memory_gib else None,
        "image_id": f"docker:{image}" if image else None,
        "use_spot": True if context.use_spot else None,
        "job_recovery": {
            "max_restarts_on_errors": spec.max_restarts,
            "recover_on_exit_codes": [int(ExitCode.REQUEUE)],
        },
    }
    return {key: value for key, value in found.items() if value is not None}


def script(spec: RunSpec, run_id: str, workdir: str, context: SkyContext) -> str:
    """What every node runs."""
    root = context.run_root
    lasting = spec.checkpoint_dir or (f"{root.rstrip('/')}/{run_id}/{names.CHECKPOINTS_DIR}" if root else "")
    return SCRIPT.format(
        parts=PARTS,
        run=RUN_DIR,
        python=shlex.quote(context.python),
        elsewhere=f" {shlex.quote(lasting)}" if lasting else "",
        workdir=shlex.quote(workdir),
        port=PORT,
        host=names.ENV_HOST,
        hosts=names.ENV_HOSTS,
        address=names.ENV_ADDRESS,
    )


def slug(name: str) -> str:
    """A run's name as SkyPilot and what lies below it accept one."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:32].strip("-") or "run"


def launch(found: Mapping[str, Any]) -> int:
    """Submit the task as a managed job and return once it is queued; the exit code is that of `sky`.

    Raises MissingExtraError without SkyPilot's command, and ClusterError when it refuses.
    """
    from tradewind.launch.kubernetes.preview import to_yaml

    command = shutil.which("sky")
    if command is None:
        raise MissingExtraError(
            "--on sky needs SkyPilot's `sky` on the PATH: pip install 'skypilot[kubernetes]'"
        )
    path = Path(found["file_mounts"][PARTS]) / "task.yaml"
    path.write_text(to_yaml([dict(found)]), encoding="utf-8")
    secret = ["--secret", names.ENV_TOKEN] if "secrets" in found else []
    done = subprocess.run(
        [command, "jobs", "launch", "--yes", "--detach-run", "--name", found["name"], *secret, str(path)],
        env=os.environ | {names.ENV_TOKEN: secrets.token_hex(32)},
        check=False,
    )
    if done.returncode:
        raise ClusterError(f"`sky jobs launch` refused {path} with {done.returncode}; what it said is above")
    return ExitCode.OK
