"""Run in SkyPilot's own environment: does it load a task, and does its optimizer find a place for it?

usage: python -P sky_check.py TASK.yaml

Prints one JSON object. SkyPilot's own state goes to $HOME, and the cluster is the one of $KUBECONFIG.
"""

import json
import sys

import sky
from sky import check, exceptions, optimizer


def main(path: str) -> None:
    """Load, ask which clouds there are, and optimize without launching."""
    check.check_capabilities(
        quiet=False, clouds=["kubernetes"], capabilities=[sky.clouds.CloudCapability.COMPUTE]
    )
    task = sky.Task.from_yaml(path)
    with sky.Dag() as dag:
        dag.add(task)
    found = {"name": task.name, "nodes": task.num_nodes, "refused": "", "cloud": ""}
    (wanted,) = task.resources
    found["recovery"] = wanted.job_recovery
    try:
        best = optimizer.Optimizer.optimize(dag, quiet=True).tasks[0].best_resources
        found["cloud"] = str(best.cloud)
    except exceptions.ResourcesUnavailableError as error:
        found["refused"] = str(error)
    print("\nFOUND " + json.dumps(found))


main(sys.argv[1])
