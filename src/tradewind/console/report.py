"""`tradewind report`: everything about a run on one page that needs nothing but itself."""

import base64
import hashlib
import time
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from tradewind import __version__
from tradewind.console.loadview import load_section
from tradewind.console.markup import Html, join, tag
from tradewind.console.runview import curves_section, failure_section, ledger_section
from tradewind.console.scales import number, plural, seconds
from tradewind.console.view import RunView, collect
from tradewind.scale.outcome import LoadResult
from tradewind.store import Store

TONES = {"succeeded": "good", "failed": "bad", "stopped": "warn", "requeued": "warn"}


def report(run: str, store: Store, load_results: Sequence[LoadResult] = ()) -> str:
    """The page about a run as HTML: one file, no request leaves it. Raises NotFoundError."""
    return render(collect(run, store, load_results))


def write_report(run: str, store: Store, path: Path) -> Path:
    """Writes the page to `path` and returns it; makes the folder when it is not there."""
    page = report(run, store)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
    return path


def render(view: RunView) -> str:
    """The page of a view."""
    sections = (failure_section(view), ledger_section(view), curves_section(view), load_section(view.loads))
    body = join(_header(view), tag("main", _tiles(view), *sections), _footer(view))
    style, script = (_asset(name) for name in ("page.css", "page.js"))
    head = join(
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_policy(script)),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("link", rel="icon", href="data:,"),
        tag("title", f"{view.run.name} - Tradewind report"),
        tag("style", style),
    )
    page = tag("html", tag("head", head), tag("body", body, tag("script", script)), lang="en")
    return f"<!doctype html>\n{page}\n"


def _asset(name: str) -> Html:
    return Html(resources.files("tradewind.console").joinpath(name).read_text("utf-8"))


def _policy(script: str) -> str:
    """Only this very script runs, and nothing is loaded: what escaping may miss, the browser still stops."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _header(view: RunView) -> Html:
    run = view.run
    script = str(run.spec.get("script") or "")
    args = " ".join(str(arg) for arg in run.spec.get("args") or ())
    facts = [
        tag("span", "run ", tag("code", run.id)),
        tag("span", _date(run.created_s)),
        tag("span", plural(int(run.spec.get("workers") or 1), "worker")),
        tag("span", tag("code", f"{script} {args}".strip())) if script else Html(),
        tag("span", "code ", tag("code", run.snapshot[:19])) if run.snapshot else Html(),
    ]
    pill = tag("span", run.state, class_=f"pill {TONES.get(run.state, 'calm')}")
    return tag(
        "header",
        tag("div", "Tradewind report", class_="word"),
        tag("h1", run.name, pill),
        tag("div", *facts, class_="sub"),
    )


def _date(t_s: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(t_s))


def _tile(name: str, value: str, unit: str = "", note: str = "", tone: str = "") -> Html:
    figure = tag(
        "div", value, tag("span", unit, class_="unit") if unit else None, class_=f"value {tone}".strip()
    )
    return tag("div", tag("div", name, class_="name"), figure, tag("div", note, class_="note"), class_="tile")


def _tiles(view: RunView) -> Html:
    tiles = [
        _tile("Wall time", *_split(view.wall_s), note=plural(len(view.attempts), "attempt")),
        *_training_tiles(view),
        *_recovery_tiles(view),
        *_load_tiles(view.loads),
    ]
    return tag("div", *tiles, class_="tiles")


def _split(value_s: float) -> tuple[str, str]:
    figure, _, unit = seconds(value_s).partition(" ")
    return figure, unit


def _training_tiles(view: RunView) -> list[Html]:
    tiles = []
    if view.last_step is not None:
        tiles.append(_tile("Steps", f"{view.last_step:,}", note="committed by the optimizer"))
    if view.goodput is not None:
        tiles.append(
            _tile("Training goodput", f"{view.goodput:.1%}", note="compute and communication in wall time")
        )
    losses = [name for name in view.curves if "loss" in name.lower()]
    for name in losses[:1]:
        points = view.curves[name]
        note = f"from {number(points[0][1])} at step {points[0][0]:.0f}"
        tiles.append(_tile(f"Last {name}", number(points[-1][1]), note=note))
    return tiles


def _recovery_tiles(view: RunView) -> list[Html]:
    failures = view.failures
    if not failures:
        return [_tile("Failures", "0", note="no worker was lost")]
    times = [failure.recovered_s for failure in failures if failure.recovered_s is not None]
    if not times:
        return [_tile("Failures", str(len(failures)), note="not recovered", tone="bad")]
    note = f"{plural(len(failures), 'failure')}, {len(times)} recovered; failure to next step"
    return [_tile("Slowest recovery", *_split(max(times)), note=note, tone="good")]


def _load_tiles(loads: Sequence[LoadResult]) -> list[Html]:
    if not loads:
        return []
    best = max(loads, key=lambda load: load.goodput_per_s)
    tone = {"pass": "good", "fail": "bad"}.get(best.verdict, "warn")
    note = f"at {best.offered_per_s:.0f}/s offered, answered inside {best.deadline_ms:g} ms"
    return [
        _tile("Best goodput", number(best.goodput_per_s), "/s", note),
        _tile("p99 there", number(best.p99_ms), "ms", f"verdict: {best.verdict}", tone),
    ]


def _footer(view: RunView) -> Html:
    return tag(
        "footer",
        f"Written {_date(view.now_s)} by tradewind {__version__}. This page works offline and loads nothing.",
    )
