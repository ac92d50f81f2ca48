"""How each server is started with its settings, on loopback, until it answers a real request."""

import base64
import contextlib
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.peers.environments import SERVERS, TRITON, environment
from bench.peers.serving import model
from bench.served import wait_for_workers
from tradewind.agent.job import free_port
from tradewind.serve.protocols.v2 import HEADER_LENGTH

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
START_S, STOP_S = 120.0, 10.0
Settings = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Endpoint:
    """Where a server answers, and one request that it takes."""

    url: str
    headers: dict[str, str]
    body: bytes
    process: "subprocess.Popen[bytes]"


Start = Callable[[str, Settings, Path], Endpoint]
"""A model's name, settings and an empty folder in; a started process out, not yet answering."""


@contextlib.contextmanager
def serving(server: str, name: str, settings: Settings) -> Iterator[Endpoint]:
    """A server that answers, until the block ends."""
    # A short name: Ray's sockets do not bear a long one.
    with tempfile.TemporaryDirectory(prefix="tw", dir="/tmp", ignore_cleanup_errors=True) as folder:
        endpoint = STARTS[server](name, settings, Path(folder))
        try:
            _wait(server, endpoint, Path(folder))
            if server == "tradewind":  # the others load nothing more once they answer
                wait_for_workers(endpoint.url, 2)
            yield endpoint
        finally:
            _stop(endpoint.process)


def tradewind(name: str, settings: Settings, folder: Path) -> Endpoint:
    """Ours: nothing to set but the promise."""
    served = f"{HERE / 'ours_model.py'}:Spin" if name == "spin" else str(package(name))
    port = free_port()
    command = [str(Path(sys.executable).with_name("tradewind")), "serve", served, "--port", str(port)]
    command += ["--slo", f"{settings.get('deadline_ms', 100)}ms"]
    home = {"TRADEWIND_HOME": str(folder), "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"}
    path = "Spin" if name == "spin" else name
    body, headers = tensors(name)
    return Endpoint(_url(port, f"v2/models/{path}/infer"), headers, body, _popen(command, folder, home))


def triton(name: str, settings: Settings, folder: Path) -> Endpoint:
    """Triton with its Python backend and a dynamic batcher: `delay_us`, `timeout_us`, `queue`."""
    packages = environment(*TRITON).parent / "lib/python3.11/site-packages"
    home = packages / "pytriton/tritonserver"
    shutil.copytree(home / "backends", folder / "backends")
    stub = home / "python_backend_stubs/3.11/triton_python_backend_stub"
    shutil.copy(stub, folder / "backends/python")
    version = folder / "models" / name / "1"
    version.mkdir(parents=True)
    shutil.copy(HERE / "triton_model.py", version / "model.py")
    (version.parent / "config.pbtxt").write_text(triton_config(name, settings))
    port = free_port()
    command = [str(home / "bin/tritonserver"), "--model-repository", str(folder / "models")]
    command += ["--backend-directory", str(folder / "backends"), "--http-address", "127.0.0.1"]
    command += ["--http-port", str(port), "--allow-grpc", "false", "--allow-metrics", "false"]
    command += ["--http-thread-count", str(settings.get("http_threads", 4))]
    env = {"LD_LIBRARY_PATH": str(packages / "nvidia_pytriton.libs"), "BENCH_PATH": f"{packages}:{ROOT}"}
    body, headers = tensors(name)
    return Endpoint(_url(port, f"v2/models/{name}/infer"), headers, body, _popen(command, folder, env))


def triton_config(name: str, settings: Settings) -> str:
    """The model's configuration in Triton's text format."""
    shape = model.SHAPES[name]
    policy = f"timeout_action: REJECT default_timeout_microseconds: {settings.get('timeout_us', 0)}"
    policy += f" max_queue_size: {settings.get('queue', 0)}"
    batching = f"max_queue_delay_microseconds: {settings.get('delay_us', 0)}"
    return "\n".join(
        (
            f'backend: "python" max_batch_size: {model.MAX_BATCH}',
            f'input [{{ name: "x" data_type: TYPE_FP32 dims: {list(shape.inputs)} }}]',
            f'output [{{ name: "y" data_type: TYPE_FP32 dims: {list(shape.outputs)} }}]',
            "instance_group [{ kind: KIND_CPU count: 1 }]",
            f"dynamic_batching {{ {batching} default_queue_policy {{ {policy} }} }}",
            f'parameters {{ key: "model" value {{ string_value: "{name}" }} }}',
        )
    )


def mosec(name: str, settings: Settings, folder: Path) -> Endpoint:
    """Mosec: `wait_ms`, `capacity` of its queue, `timeout_ms`."""
    port = free_port()
    command = [_python(), str(HERE / "mosec_server.py"), "--address", "127.0.0.1", "--port", str(port)]
    command += ["--log-level", "warning", "--path", str(folder / "ipc")]
    env = PEER | {"BENCH_MODEL": name, "BENCH_WAIT_MS": str(settings.get("wait_ms", 0))}
    for flag in ("capacity", "timeout"):
        if flag in settings:
            command += [f"--{flag}", str(settings[flag])]
    return Endpoint(_url(port, "inference"), RAW, raw(name), _popen(command, folder, env))


def litserve(name: str, settings: Settings, folder: Path) -> Endpoint:
    """LitServe: `wait_s`, `fast_queue`."""
    port = free_port()
    command = [_python(), str(HERE / "litserve_server.py"), name, str(port), str(model.MAX_BATCH)]
    command += [str(settings.get("wait_s", 0.0)), "1" if settings.get("fast_queue") else "0"]
    body = json.dumps({"x": base64.b64encode(raw(name)).decode()}).encode()
    return Endpoint(_url(port, "predict"), {}, body, _popen(command, folder, PEER))


def bentoml(name: str, settings: Settings, folder: Path) -> Endpoint:
    """BentoML: `latency_ms` of its adaptive batcher."""
    port = free_port()
    command = [str(environment(*SERVERS) / "bentoml"), "serve", "bench.peers.serving.bentoml_service:Model"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--working-dir", str(ROOT)]
    env = {"BENCH_MODEL": name, "BENCH_LATENCY_MS": str(settings.get("latency_ms", 20))}
    env |= {"BENTOML_HOME": str(folder), "BENTOML_DO_NOT_TRACK": "True"}
    body = json.dumps({"x": [base64.b64encode(raw(name)).decode()]}).encode()
    return Endpoint(_url(port, "predict"), {}, body, _popen(command, folder, PEER | env))


def ray_serve(name: str, settings: Settings, folder: Path) -> Endpoint:
    """Ray Serve: `wait_s` of its batcher."""
    port = free_port()
    command = [_python(), str(HERE / "ray_app.py"), name, str(port), str(model.MAX_BATCH)]
    command += [str(settings.get("wait_s", 0.0)), str(folder)]
    env = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_SERVE_ENABLE_HA_PROXY": "0"}
    return Endpoint(_url(port, ""), RAW, raw(name), _popen(command, folder, PEER | env))


STARTS: dict[str, Start] = {
    "tradewind": tradewind,
    "triton": triton,
    "mosec": mosec,
    "litserve": litserve,
    "bentoml": bentoml,
    "ray": ray_serve,
}
RAW = {"content-type": "application/octet-stream"}
PEER = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def raw(name: str) -> bytes:
    """One request's row as float32 bytes."""
    return model.row(name).tobytes()


def tensors(name: str) -> tuple[bytes, dict[str, str]]:
    """One request of the Open Inference Protocol with a binary tensor, and its headers."""
    data = raw(name)
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, *model.SHAPES[name].inputs]}
    tensor["parameters"] = {"binary_data_size": len(data)}
    output = {"name": "y", "parameters": {"binary_data": True}}
    head = json.dumps({"inputs": [tensor], "outputs": [output]}).encode()
    return head + data, {HEADER_LENGTH: str(len(head)), **RAW}


def package(name: str) -> Path:
    """The package of one of the torch models, written once a machine."""
    from tradewind.models import write_package

    widths = "-".join(map(str, model.WIDTHS[name]))
    folder = Path(tempfile.gettempdir()) / "tradewind-bench" / f"package-{name}-{widths}"
    if not folder.exists():
        write_package(folder, name=name, programs={name: exported(name)}, outputs={name: ["y"]})
    return folder


def exported(name: str) -> Any:
    """One of the torch models as an exported program, for any number of rows."""
    import torch
    from torch.export import Dim, export

    example = torch.from_numpy(model.row(name)).repeat(3, 1, 1)
    return export(_named(model.network(name)), (example,), dynamic_shapes=({0: Dim("b", min=1)},))


def _named(network: Any) -> Any:
    """The network with its input called x."""
    import torch

    class Named(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, x: Any) -> Any:
            return self.network(x)

    return Named().eval()


def _python() -> str:
    return str(environment(*SERVERS) / "python")


def _url(port: int, path: str) -> str:
    return f"http://127.0.0.1:{port}/{path}"


def _popen(command: Sequence[str], folder: Path, env: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    """A process in a group of its own, its output in the folder's `log`."""
    with open(folder / "log", "wb") as log:
        return subprocess.Popen(
            command,
            env=os.environ | dict(env),
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def _wait(server: str, endpoint: Endpoint, folder: Path) -> None:
    request = urllib.request.Request(
        endpoint.url, endpoint.body, {"content-type": "application/json", **endpoint.headers}
    )
    end, why = time.monotonic() + START_S, ""
    while time.monotonic() < end and endpoint.process.poll() is None:
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                answer.read()
            return
        except urllib.error.HTTPError as error:
            why = f"{error.code} {error.read()[:300]!r}"
        except OSError as error:
            why = str(error)
        time.sleep(0.2)
    log = (folder / "log").read_text(errors="replace")[-2000:]
    raise RuntimeError(f"{server} does not answer ({why}):\n{log}")


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """End the whole group that was started: some leave children behind."""
    assert process.stdin is not None
    process.stdin.close()
    if process.poll() is None:
        process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
