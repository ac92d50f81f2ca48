"""Packages and server processes that serving benchmarks measure, and load from processes of their own."""

import concurrent.futures
import contextlib
import json
import multiprocessing
import os
import pathlib
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

LOADED_S = 300.0
COMMAND = "from tradewind.cli.main import main; main()"


class Started(NamedTuple):
    """A server process that answers."""

    url: str
    pid: int


def compile_ahead(spec: Mapping[str, Any], folder: pathlib.Path) -> str:
    """Compile an endpoint's programs for those who serve it from this folder; say in a line how each will run."""
    done = subprocess.run(
        _tradewind("compile", spec, folder), env=_env(folder), capture_output=True, text=True, check=True
    )
    return ", ".join(
        f"{row['program']} {'compiled' if row['compiled'] else 'eager: ' + row['why']}"
        for row in json.loads(done.stdout)
    )


def _tradewind(verb: str, spec: Mapping[str, Any], folder: pathlib.Path) -> list[str]:
    path = folder / "endpoint.yaml"
    path.write_text(json.dumps(spec))
    return [sys.executable, "-c", COMMAND, verb, str(path), "-o", "json"]


def _env(folder: pathlib.Path) -> dict[str, str]:
    return os.environ | {"TRADEWIND_HOME": str(folder)}


@contextlib.contextmanager
def serving(spec: Mapping[str, Any], folder: pathlib.Path) -> Iterator[str]:
    """Serve an endpoint, given as its YAML file would be, in a process of its own; give its URL."""
    with started(spec, folder) as server:
        yield server.url


@contextlib.contextmanager
def started(spec: Mapping[str, Any], folder: pathlib.Path) -> Iterator[Started]:
    """The same; give its process id too."""
    command = [*_tradewind("serve", spec, folder), "--port", "0", "--access-log", "off"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, env=_env(folder), text=True)
    assert process.stdout is not None
    try:
        lines = []
        while line := process.stdout.readline():
            lines.append(line)
            if line.startswith("}"):
                break
        if not lines:
            raise RuntimeError((folder / "log").read_text()[-2000:])
        url = json.loads("".join(lines))["url"]
        wait_for_workers(url, int(spec.get("workers", 1)) + 1)
        yield Started(url, process.pid)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def wait_for_workers(url: str, expected: int) -> None:
    """Until so many are loaded, the spare too: what loads takes from the cores that are measured. Any URL of a server."""
    metrics, deadline = urllib.parse.urljoin(url, "/metrics"), time.monotonic() + LOADED_S
    while time.monotonic() < deadline:
        with urllib.request.urlopen(metrics, timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        if f"tradewind_workers {expected:.1f}" in lines:
            return
        time.sleep(0.2)
    raise RuntimeError(f"{url} has not {expected} workers after {LOADED_S:g} s")


def loads(url: str, bodies: Sequence[bytes], streams: Sequence[Mapping[str, Any]]) -> list[Any]:
    """Offer several streams of load at once, each from its own process; return what became of each."""
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(len(streams), mp_context=context) as pool:
        running = [pool.submit(_load, url, list(bodies), dict(stream)) for stream in streams]
        return [future.result() for future in running]


def _load(url: str, bodies: list[bytes], stream: dict[str, Any]) -> Any:
    from tradewind.scale.load import run_load

    return run_load(url, bodies=bodies, **stream)


def levels_answered(url: str) -> Counter[str]:
    """How many requests the server has answered at each quality level."""
    from prometheus_client.parser import text_string_to_metric_families

    with urllib.request.urlopen(url + "/metrics") as answer:
        text = answer.read().decode()
    found: Counter[str] = Counter()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == "tradewind_level_requests_total":
                found[sample.labels["level"]] += int(sample.value)
    return found
