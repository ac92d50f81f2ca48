"""The main job, end to end, on one machine: `make demo`.

Trains the recommender across two workers, kills one of them, compares with SASRec and popularity, packages and
promotes the result, serves it, and offers it half, once and twice the load it can carry. Everything is done through
the `tradewind` command, as a user would.
"""

import argparse
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from recipes.recommender.demo_summary import print_summary
from tradewind.scale.capacity import find_capacity
from tradewind.scale.load import run_load
from tradewind.scale.outcome import LoadResult
from tradewind.store import Event, Store, open_store

TRAIN = pathlib.Path(__file__).with_name("train.py")
SHARES_OF_CAPACITY = (0.5, 1.0, 2.0)
GATE = ("--metric", "ndcg@10", "--margin", "0.005")
MARKER = ".made-by-demo"


def main() -> None:
    """Run every act of the demo; exits non-zero at the first that does not do what it says."""
    args = parse()
    begin_afresh(args.out)
    os.environ["TRADEWIND_HOME"] = str(args.out.resolve() / "home")
    started = time.monotonic()
    act("1/6  Train HSTU across two workers, and kill one of them")
    with open_store() as store:
        run = train_and_kill(store, args)
        act("2/6  Train SASRec, and count popularity, for comparison")
        quality = {"hstu": metrics_of(args.out / "hstu")}
        for model in ("sasrec", "popularity"):
            train(args, model)
            quality[model] = metrics_of(args.out / model)
        act("3/6  Package, publish, promote through the gate")
        publish(store, args)
        act("4/6  Serve it, find its capacity, offer half, once and twice of it")
        loads = serve_and_load(store, run, args)
        act("5/6  Report")
        page = args.out / "report.html"
        tradewind("report", run, "--out", str(page))
        act("6/6  What happened")
        print_summary(store, run, quality, loads)
    print(f"\nOne page with all of it: {page}\nThe demo took {time.monotonic() - started:.0f} s.")


def parse() -> argparse.Namespace:
    """The demo's few flags."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--out", type=pathlib.Path, default=pathlib.Path(".demo"), help="where everything goes"
    )
    parser.add_argument("--data", default="ml-100k", help="ml-100k, synthetic, or a Parquet or CSV event log")
    parser.add_argument(
        "--epochs",
        type=int,
        default=10,
        help="epochs of each model, at most (default 10; 0: the recipe's own 20)",
    )
    parser.add_argument("--slo", default="50ms", help="latency budget of the endpoint")
    parser.add_argument("--port", type=int, default=8765, help="port of the endpoint, on loopback")
    parser.add_argument("--seconds", type=float, default=8.0, help="length of each load level")
    return parser.parse_args()


def begin_afresh(out: pathlib.Path) -> None:
    """Empty the folder of an earlier demo; refuse a folder that holds anything else."""
    if out.exists() and any(out.iterdir()):
        if not (out / MARKER).exists():
            sys.exit(f"demo: {out} holds files that no demo made; name an empty folder with --out")
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)
    (out / MARKER).touch()


def act(title: str) -> None:
    """Announce one act."""
    print(f"\n\033[1m{title}\033[0m" if sys.stdout.isatty() else f"\n{title}", flush=True)


def tradewind(*words: str, **popen: Any) -> None:
    """Run one `tradewind` command as a user would; stop the demo if it fails."""
    print("$ tradewind " + " ".join(words), flush=True)
    code = subprocess.run(["tradewind", *words], check=False, **popen).returncode
    if code:
        sys.exit(f"demo: `tradewind {' '.join(words)}` ended with {code}")


def script_args(args: argparse.Namespace, model: str) -> list[str]:
    """What the training script is told for `model`."""
    words = ["--model", model, "--data", args.data, "--out", str((args.out / model).resolve())]
    return words + (["--epochs", str(args.epochs)] if args.epochs else [])


def train(args: argparse.Namespace, model: str) -> None:
    """Train `model` to its end with one worker, or two where the model can use them."""
    workers = "1" if model == "popularity" else "2"
    tradewind(
        "run", str(TRAIN), "--workers", workers, "--name", f"demo-{model}", "--", *script_args(args, model)
    )


def train_and_kill(store: Store, args: argparse.Namespace) -> str:
    """Train HSTU; once its first checkpoint is committed, `kill -9` rank 1; returns the run's id."""
    words = ["run", str(TRAIN), "--workers", "2", "--name", "demo-hstu", "--", *script_args(args, "hstu")]
    print("$ tradewind " + " ".join(words), flush=True)
    before = {run.id for run in store.runs()}
    process = subprocess.Popen(["tradewind", *words])
    run = next(wait(lambda: [r.id for r in store.runs() if r.id not in before], process))
    next(wait(lambda: store.events(run, kind="checkpoint"), process))
    victim = [e for e in store.events(run, kind="worker_started") if e.rank == 1][-1].data["pid"]
    print(f"demo: kill -9 {victim} (rank 1)", flush=True)
    os.kill(victim, signal.SIGKILL)
    store.add_events(
        [Event(run=run, attempt=0, rank=1, t_s=time.time(), kind="killed_by_demo", data={"pid": victim})]
    )
    if process.wait():
        sys.exit(f"demo: training ended with {process.returncode} after the kill")
    return run


def wait(look: Any, process: subprocess.Popen[Any]) -> Iterator[Any]:
    """Look until there is something, for as long as `process` lives."""
    while process.poll() is None:
        found = look()
        if found:
            yield found[0]
        time.sleep(0.05)
    sys.exit("demo: training ended before it wrote its first checkpoint")


def metrics_of(folder: pathlib.Path) -> dict[str, float]:
    """Test metrics that a training script left beside its package."""
    return json.loads((folder / "metrics.json").read_text())


def publish(store: Store, args: argparse.Namespace) -> None:
    """SASRec goes to production first; then HSTU has to pass the gate against it."""
    for model in ("sasrec", "hstu"):
        tradewind("publish", str(args.out / model / "package"), "--name", "recommender")
        version = store.model_version("recommender").version
        tradewind("promote", f"recommender@{version}", "--alias", "production", *GATE)
    tradewind("models", "recommender")


def serve_and_load(store: Store, run: str, args: argparse.Namespace) -> list[tuple[float, LoadResult]]:
    """Serve production; measure capacity closed-loop, then goodput open-loop at shares of it."""
    url = f"http://127.0.0.1:{args.port}/v1/recommend"
    bodies = [
        json.dumps(body).encode() for body in json.loads((args.out / "hstu" / "requests.json").read_text())
    ]
    deadline_ms = float(args.slo.removesuffix("ms"))
    results = []
    with endpoint(args):
        capacity = find_capacity(url, bodies=bodies, deadline_ms=deadline_ms)
        print(f"capacity: {capacity.per_s:.0f} answers a second inside {args.slo}", flush=True)
        for share in SHARES_OF_CAPACITY:
            result = run_load(
                url,
                rate=share * capacity.per_s,
                duration_s=args.seconds,
                deadline_ms=deadline_ms,
                bodies=bodies,
            )
            results.append((share, result))
            store.add_events([load_event(run, share, result)])
            print(
                f"{share:.1f}x  {result.goodput_per_s:.0f}/s in time, p99 {result.p99_ms:.1f} ms", flush=True
            )
    return results


def load_event(run: str, share: float, result: LoadResult) -> Event:
    """A load result as the report finds it."""
    import msgspec

    data = {**msgspec.to_builtins(result), "share_of_capacity": share}
    return Event(run=run, attempt=0, rank=None, t_s=time.time(), kind="load", data=data)


@contextmanager
def endpoint(args: argparse.Namespace) -> Iterator[None]:
    """`tradewind serve recommender@production`, ready, and drained at the end."""
    words = ["serve", "recommender@production", "--slo", args.slo, "--port", str(args.port)]
    print("$ tradewind " + " ".join(words), flush=True)
    log = args.out / "serve.log"
    print(f"(a line for each request goes to {log})", flush=True)
    with log.open("wb") as output:
        process = subprocess.Popen(["tradewind", *words], stdout=output, stderr=subprocess.STDOUT)
    try:
        await_ready(process, args.port)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        code = process.wait(timeout=60)
    if code:
        sys.exit(f"demo: the endpoint ended with {code} after SIGTERM; see {args.out / 'serve.log'}")


def await_ready(process: subprocess.Popen[Any], port: int) -> None:
    """Return when the endpoint says it is ready; stop the demo if it dies first."""
    import httpx2

    with httpx2.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
        while process.poll() is None:
            try:
                if client.get("/v2/health/ready").status_code == 200:
                    return
            except httpx2.TransportError:
                pass  # not listening yet
            time.sleep(0.1)
    sys.exit(f"demo: the endpoint ended with {process.returncode} before it was ready; see its serve.log")


if __name__ == "__main__":
    main()
