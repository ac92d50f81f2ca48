"""A hundred thousand seeded requests, malformed and valid, over HTTP and gRPC: no 5xx, no leak, memory flat.

503 is not counted: it says "come back", and only where the server holds as many bytes of requests as it may. Over
gRPC what counts is INTERNAL, UNKNOWN and DATA_LOSS. A whole request that gets no answer at all counts as well.
"""

import argparse
import asyncio
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

from bench.harness import Figure, Options, main, say
from bench.malformed.drive import Tally, over_grpc, over_http

NAME = "fuzz"
INPUTS, QUICK_INPUTS = 120_000, 3_000
GRPC_SHARE = 0.15
CONNECTIONS = 8
WARM_SHARE = 0.25
"""Of the inputs, before memory is first looked at."""
STALLED = 100
"""Connections that send half a head and then nothing, as long as the server lets them."""
SERVE = "from tradewind.cli.main import main; main()"


class Served(NamedTuple):
    """A server process of its own."""

    host: str
    port: int
    grpc: str
    pid: int

    def rss_mib(self) -> float:
        """Resident memory of the front process, model workers not counted."""
        pages = int(pathlib.Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    def num_files(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def ready(self) -> bool:
        with urllib.request.urlopen(f"http://{self.host}:{self.port}/v2/health/ready", timeout=60) as answer:
            return bool(answer.status == 200)


def measure(options: Options) -> Mapping[str, Figure]:
    """Send the inputs and hold the server to its word."""
    total = options.extra.inputs or (QUICK_INPUTS if options.quick else INPUTS)
    with tempfile.TemporaryDirectory() as folder, serving(pathlib.Path(folder)) as server:
        tally = Tally()
        files = server.num_files()
        asyncio.run(_offer(server, tally, int(total * WARM_SHARE), seed=1))
        warm_mib = server.rss_mib()
        say(f"after {tally.inputs} inputs: {warm_mib:.1f} MiB")
        stalled = asyncio.run(_offer(server, tally, total - tally.inputs, seed=2, stalled=STALLED))
        end_mib, left_open = server.rss_mib(), server.num_files() - files
        ready = server.ready()
    for (kind, status), count in sorted(tally.statuses.items()):
        say(f"{kind:<20} {status:<20} {count}")
    for bug in tally.bugs[:20]:
        say(f"BUG {bug}")
    assert ready, "the server is not ready after it"
    return {
        "inputs": Figure.of([tally.inputs], "inputs"),
        "errors_5xx": Figure.of([len(tally.bugs)], "answers"),
        "memory_growth_mib": Figure.of([end_mib - warm_mib], "MiB"),
        "memory_mib": Figure.of([end_mib], "MiB"),
        "files_left_open": Figure.of([left_open], "files"),
        "stalled_cut_off": Figure.of([stalled], "share"),
    }


async def _offer(server: Served, tally: Tally, count: int, seed: int, stalled: int = 0) -> float:
    """Send `count` inputs over all connections; return the share of stalled ones that the server ended."""
    stalling = [asyncio.create_task(_stall(server, i)) for i in range(stalled)]
    each_grpc = int(count * GRPC_SHARE / CONNECTIONS)
    each = count // CONNECTIONS - each_grpc
    async with asyncio.TaskGroup() as group:
        for i in range(CONNECTIONS):
            group.create_task(over_http(server.host, server.port, seed * 1000 + i, each, tally))
            group.create_task(over_grpc(server.grpc, seed * 1000 + 500 + i, each_grpc, tally))
    ended = await asyncio.gather(*stalling)
    return sum(ended) / len(ended) if ended else 0.0


async def _stall(server: Served, i: int) -> bool:
    port = server.port if i % 4 else int(server.grpc.rpartition(":")[2])
    reader, writer = await asyncio.open_connection(server.host, port)
    writer.write(b"POST /v2/models/affine/infer HTTP/1.1\r\nx: " if i % 4 else b"PRI * HTTP/2.0\r\n\r\n")
    try:
        async with asyncio.timeout(120):
            while await reader.read(1 << 16):
                pass
    except TimeoutError:
        return False
    except ConnectionError:
        pass
    finally:
        writer.close()
    return True


@contextmanager
def serving(folder: pathlib.Path) -> Iterator[Served]:
    """Serve a small model, requests of at most 1 MiB, until the block ends."""
    package = folder / "affine"
    subprocess.run(
        [sys.executable, "-c", f"from bench.fuzz import write; write({str(package)!r})"], check=True
    )
    flags = [
        "--port",
        "0",
        "--grpc-port",
        "0",
        "--max-request-mib",
        "1",
        "--slo",
        "5s",
        "--access-log",
        "off",
    ]
    command = [sys.executable, "-c", SERVE, "serve", str(package), *flags, "-o", "json"]
    environment = os.environ | {"TRADEWIND_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"}
    (folder / "home").mkdir()
    log = folder / "log"
    with (
        log.open("wb") as stderr,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=stderr, env=environment, text=True
        ) as process,
    ):
        try:
            assert process.stdout is not None
            lines: list[str] = []
            while not lines or (lines[-1] and not lines[-1].startswith("}")):
                lines.append(process.stdout.readline())
            assert lines[-1], log.read_text()
            said = json.loads("".join(lines))
            host, _, port = said["url"].partition("://")[2].rpartition(":")
            yield Served(host, int(port), said["grpc"], process.pid)
        finally:
            process.terminate()
            process.wait(60)
            for line in log.read_text().splitlines():
                if "bug" in line or "Traceback" in line:
                    say(line[:2000])


def write(path: str) -> None:
    """Write a package of two inputs; in a process of its own, so that the benchmark's stays small."""
    import torch
    from torch.export import Dim, export

    from tradewind.models import write_package

    class Net(torch.nn.Module):
        def forward(self, x: torch.Tensor, ids: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"y": x * 2.0 + 1.0, "next": ids + 1}

    rows = {0: Dim("rows", min=1)}
    inputs = (torch.ones(3, 4), torch.ones(3, dtype=torch.int64))
    program = export(Net().eval(), inputs, dynamic_shapes=(rows, rows))
    write_package(
        pathlib.Path(path), name="affine", task="generic", programs={"affine": program},
        tensors={}, vocabularies={}, metrics={}, lineage={}, config={},
    )  # fmt: skip


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--inputs", type=int, default=0, help=f"inputs to send (default {INPUTS})")


if __name__ == "__main__":
    main(NAME, measure, packages=("grpcio", "httptools", "uvloop"), add_flags=add_flags)
