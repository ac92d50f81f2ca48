"""What `render` prints for one run, kept to be read and compared: `python -m tests.launch.kubernetes.golden`."""

import re
from pathlib import Path

from tests.launch.kubernetes.builders import IMAGE, code, context, request
from tradewind.launch.kubernetes.context import Volume
from tradewind.launch.kubernetes.preview import to_yaml
from tradewind.launch.kubernetes.targets import TARGETS, render
from tradewind.spec import Placement, Resources, RunSpec, Toleration

FOLDER = Path(__file__).with_name("golden")
SPEC = RunSpec(
    script="train.py",
    args=("--lr", "0.1"),
    hosts=2,
    workers=16,
    resources=Resources(cpus=4, memory_gib=32, gpus=1, gpu_type="NVIDIA-H100-80GB-HBM3"),
    placement=Placement(
        image=IMAGE,
        tolerations=(Toleration(key="nvidia.com/gpu", effect="NoSchedule"),),
        host_resources={"rdma/hca": 8},
        priority_class="research",
        queue="team-a",
    ),
)
PROGRAM = re.compile(r"(  unpack\.py: \|\n)(?:    .*\n|\n)+")


def text(target: str) -> str:
    """The YAML for one target, but for the program that lays out the code."""
    on = context(volumes=(Volume(claim="runs", path="/shared"),), run_root="/shared/runs", secrets=("store",))
    objects = render(target, request(SPEC, on=on, capabilities=None, code=code()))
    return PROGRAM.sub(r"\1    ...\n", to_yaml(objects))


if __name__ == "__main__":
    for name in TARGETS:
        (FOLDER / f"{name}.yaml").write_text(text(name))
