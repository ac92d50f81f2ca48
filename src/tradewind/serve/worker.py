"""The process that holds the model: `python -m tradewind.serve.worker`, spoken to in frames on one socket."""

import argparse
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import structlog
import torch

from tradewind.errors import TradewindError
from tradewind.models import Package, open_package
from tradewind.models.artefacts import Artefacts
from tradewind.names import ExitCode
from tradewind.retrieve.audit import Audit
from tradewind.serve import logs, wire
from tradewind.serve.arrays import nan_in, to_arrays
from tradewind.serve.cuda import Cuda
from tradewind.serve.engines.python import PythonRunner
from tradewind.serve.engines.reference import is_reference, split
from tradewind.serve.filtering import described
from tradewind.serve.lost import is_lost
from tradewind.serve.placement import keep_to, numbers_of
from tradewind.serve.programs import Programs
from tradewind.serve.runners import Runner, programs_on, recommender_of, rehearse, runners_of
from tradewind.serve.shared import Shared
from tradewind.spec import QualityLevel

log = structlog.get_logger()


def main(argv: list[str] | None = None) -> int:
    """Load, measure, say so, then answer calls until the front process closes its end."""
    args = _arguments(argv)
    logs.to_stderr()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if args.cpus:
        keep_to(args.cpus)
    torch.set_num_threads(args.threads)
    # `args.fd` is closed by the end of the process alone: a socket made of it would be when this returns, and the
    # front process is to see how a worker ended, not that it is about to.
    sock = socket.socket(fileno=os.dup(args.fd))
    with torch.inference_mode():
        try:
            return _serve(sock, args)
        except (BrokenPipeError, ConnectionResetError):
            return 0  # the front process has gone; so has whoever would read an error


def _serve(sock: socket.socket, args: argparse.Namespace) -> int:
    try:
        runners = _announce(sock, args)
    except (TradewindError, ValueError, KeyError, RuntimeError) as error:
        wire.send(sock, wire.Reply(error=f"{type(error).__name__}: {error}"))
        return 1
    return _answer(sock, runners, None if args.memory is None else Shared(args.memory))


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tradewind.serve.worker")
    parser.add_argument("model", help="folder of a package, or file.py:Class")
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--memory", type=int)
    parser.add_argument("--max-batch", type=int, default=64)
    parser.add_argument("--candidates", type=int, default=200)
    parser.add_argument("--index", default="exact")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cpus", type=numbers_of, default=set())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--levels", default="[]")
    parser.add_argument("--digest", default="")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--compiled", default="null", help="JSON list of programs; null to find out")
    return parser.parse_args(argv)


def _announce(sock: socket.socket, args: argparse.Namespace) -> Mapping[str, Runner]:
    backend = None if args.device == "cpu" else Cuda(args.device)
    if is_reference(args.model):
        runners, about, items = _python(args)
    else:
        runners, about, items = _packaged(args, backend)
    programs = {name: r.describe(time.perf_counter, args.repeats) for name, r in runners.items()}
    if backend is not None:
        backend.warming = False
    ready = wire.Description(**about, programs=programs)
    wire.send(sock, wire.Reply(ready=ready), [msgspec.json.encode(items)])
    return runners


Loaded = tuple[Mapping[str, Runner], dict[str, Any], list[str]]


def _python(args: argparse.Namespace) -> Loaded:
    name = split(args.model)[1]
    return {name: PythonRunner(args.model, args.max_batch)}, {"name": name}, []


def _packaged(args: argparse.Namespace, backend: Cuda | None) -> Loaded:
    package = open_package(args.model, digest=args.digest or None)
    manifest = package.manifest
    about = {
        "name": manifest.name,
        "task": manifest.task,
        "digest": package.digest,
        "config": dict(package.config),
    }
    items = package.vocabulary("item") if manifest.task == "recommend" else []
    levels = msgspec.json.decode(args.levels, type=tuple[QualityLevel, ...])
    programs = _programs(package, args) if backend is None else programs_on(backend, package, args.max_batch)
    runners = runners_of(package, args.max_batch, args.candidates, args.index, levels, programs)
    rehearse(runners, programs, args.repeats)
    about["execution"] = programs.execution
    recommender = recommender_of(runners)
    if recommender is not None and recommender.popular_attributes is not None:
        about["attributes"] = described(recommender.popular_attributes)
    return runners, about, items


def _programs(package: Package, args: argparse.Namespace) -> Programs:
    return Programs(package, Artefacts(), msgspec.json.decode(args.compiled, type=tuple[str, ...] | None))


def _answer(sock: socket.socket, runners: Mapping[str, Runner], memory: Shared | None = None) -> int:
    """Answer calls while there are any; return the exit code."""
    decode: Callable[[bytearray], wire.Call] = msgspec.json.Decoder(wire.Call).decode
    recommender = recommender_of(runners)
    audit = None if recommender is None else recommender.audit
    while (frame := wire.receive(sock)) is not None:
        call = decode(frame[0])
        try:
            if call.program == wire.AUDIT:
                wire.send(sock, _audited(audit))
                continue
            body = frame[1] if call.start is None or memory is None else memory.at(call.start)
            reply, buffers = _run(runners[call.program], call, body)
        except Exception as error:  # noqa: BLE001 - the client sees it, as the answer to its request
            if is_lost(error):  # whoever takes this worker's place runs the batch again
                log.error("device lost", pid=os.getpid(), error=_first_line(error))
                return ExitCode.FAILED
            reply, buffers = wire.Reply(error=f"{type(error).__name__}: {_first_line(error)}"), []
        reply.due = 0 if audit is None else audit.due()
        reply.ended_s = time.monotonic()
        wire.send(sock, reply, buffers)
    return ExitCode.OK


def _run(
    runner: Runner, call: wire.Call, body: bytearray | memoryview
) -> tuple[wire.Reply, Sequence[wire.Buffer]]:
    """Run a program on the tensors in `body`, where it is not too late for that and none holds NaN."""
    if call.begin_by_s is not None and time.monotonic() > call.begin_by_s:
        return wire.Reply(late=True), []
    arrays = to_arrays(call.tensors, body)
    nan = nan_in(call.tensors, arrays)
    if nan is not None:
        return wire.Reply(nan=nan), []
    specs, buffers = runner.answer(call.tensors, arrays)
    return wire.Reply(tensors=specs), buffers


def _audited(audit: Audit | None) -> wire.Reply:
    """Do one search again that waits for it, if one does."""
    found = None if audit is None else audit.run_one()
    if audit is None or found is None:
        return wire.Reply()
    return wire.Reply(due=audit.due(), finding=wire.Finding(*found))


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return text[0][:300] if text else "no message"


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # threads of the model's libraries have nothing left to say
