"""The page is whole, harmless, and needs nothing but itself."""

import re
from pathlib import Path

import pytest

from tests.console.build import BEGIN_S, loads, record_run
from tests.services.browser import Browser
from tradewind.console.report import report, write_report
from tradewind.store import Attempt, Event, Metric, Run, Store

EVIL = "<script>window.stolen=1</script>\"'><img src=x onerror=window.stolen=2>&amp;{{7*7}}"


def page_of(store: Store, folder: Path, name: str = "hstu-ml100k") -> Path:
    """The page of the recorded run with three load levels."""
    path = folder / "report.html"
    path.write_text(report(record_run(store, name), store, loads()), encoding="utf-8")
    return path


@pytest.mark.parametrize("dark", [False, True])
def test_the_page_opens_in_a_browser_without_errors_or_requests(
    store: Store, tmp_path: Path, browser: Browser, dark: bool
) -> None:
    """Chromium reports no console message, and the only request is for the page itself."""
    path = page_of(store, tmp_path)
    browser.open(path, dark=dark)
    assert browser.script("return document.querySelectorAll('section').length") == 4
    assert browser.script("return document.querySelectorAll('svg').length") == 8
    assert browser.complaints() == []
    assert browser.requested() == [path.as_uri()]


def test_a_page_that_loads_something_would_be_caught(store: Store, tmp_path: Path, browser: Browser) -> None:
    """An image from elsewhere is refused by the page's own policy and noticed by this test's browser."""
    path = page_of(store, tmp_path)
    smuggled = '<img src="http://127.0.0.1:9/pixel.png"></body>'
    path.write_text(path.read_text("utf-8").replace("</body>", smuggled), encoding="utf-8")
    browser.open(path)
    assert any("Content Security Policy" in message for message in browser.complaints())
    browser.requested()


def test_hovering_says_the_values(store: Store, tmp_path: Path, browser: Browser) -> None:
    """A pointer over the loss curve shows step and value, and leaving hides them."""
    browser.open(page_of(store, tmp_path))
    box = browser.script(
        "const r = [...document.querySelectorAll('svg')].find(s => s.getAttribute('aria-label') === 'loss')"
        ".querySelector('.hover'); r.scrollIntoView({block: 'center'}); const b = r.getBoundingClientRect();"
        "return [b.x, b.y, b.width, b.height]"
    )
    x, y, width, height = box
    browser.command("Input.dispatchMouseEvent", type="mouseMoved", x=x + width - 0.2, y=y + height / 2)
    assert browser.script("return document.querySelector('.tip').innerText").split() == [
        "step",
        "600",
        "loss",
        "2.081",
    ]
    browser.command("Input.dispatchMouseEvent", type="mouseMoved", x=1, y=1)
    assert browser.script("return getComputedStyle(document.querySelector('.tip')).display") == "none"
    assert browser.complaints() == []


@pytest.mark.parametrize("width", [390, 820, 1600])
def test_the_page_fits_every_width(store: Store, tmp_path: Path, browser: Browser, width: int) -> None:
    """Nothing sticks out sideways on a phone, a tablet or a wide screen."""
    browser.open(page_of(store, tmp_path), width=width)
    assert browser.script("return document.documentElement.scrollWidth") <= width


def test_nothing_a_run_says_becomes_markup(store: Store, tmp_path: Path, browser: Browser) -> None:
    """Names, arguments, reasons, failure texts and metric names full of markup run nothing."""
    run = store.add_run(Run(id="e" * 12, name=EVIL, state="failed", created_s=BEGIN_S, ended_s=BEGIN_S + 9, spec={"script": EVIL, "args": [EVIL]}, snapshot=EVIL))  # fmt: skip
    store.add_attempt(Attempt(run=run.id, index=0, state="failed", started_s=BEGIN_S + 1, ended_s=BEGIN_S + 9, reason=EVIL))  # fmt: skip
    for at, kind in ((1.0, "worker_started"), (2.0, "step"), (5.0, "checkpoint"), (8.0, "failure")):
        data = {"class": EVIL, "text": EVIL, "step": 1, "path": EVIL}
        store.add_events([Event(run=run.id, attempt=0, rank=0, t_s=BEGIN_S + at, kind=kind, data=data)])
    for step in (1, 2):
        store.add_metrics(
            [Metric(run=run.id, attempt=0, rank=0, step=step, name=EVIL, value=step, t_s=BEGIN_S)]
        )
    path = write_report(run.id, store, tmp_path / "new" / "evil.html")
    browser.open(path)
    assert browser.script("return window.stolen") is None
    assert browser.script("return document.querySelectorAll('img, body script').length") == 1
    assert browser.script("return document.querySelector('h1').firstChild.data") == EVIL
    assert browser.complaints() == []
    assert browser.requested() == [path.as_uri()]


def test_the_page_names_nothing_outside_itself(store: Store, tmp_path: Path) -> None:
    """The HTML holds no src, no import and no link but the empty icon."""
    page = page_of(store, tmp_path).read_text("utf-8")
    assert re.findall(r"\ssrc=|@import|url\(", page) == []
    assert re.findall(r'href="([^"]*)"', page) == ["data:,"]


def test_the_ledger_table_adds_up_to_the_wall_time(store: Store, tmp_path: Path) -> None:
    """The seconds shown, rounded as they are, sum to the wall time shown."""
    page = page_of(store, tmp_path).read_text("utf-8")
    section = page[page.index("Where the time went") : page.index("<h2>Curves")]
    shown = [float(text) for text in re.findall(r'<td class="n">(\d+\.\d\d)</td>', section)]
    assert sum(shown) == pytest.approx(62.0, abs=0.06)
    assert "<b>62.00</b>" in section


def test_empty_runs_have_a_page_too(store: Store) -> None:
    """A run that has not started gives a page that says so."""
    store.add_run(Run(id="4" * 12, name="new", state="pending", created_s=BEGIN_S))
    page = report("new", store)
    for said in ("No attempt has started yet", "No ledger", "logged no metric"):
        assert said in page
