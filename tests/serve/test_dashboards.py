"""The dashboard and the alerts speak only of series that a server really has."""

import json
import pathlib
import re
import shutil
import subprocess

import httpx2
import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest

from tests.serve.conftest import Server
from tests.serve.test_gpu_metrics import nvml, shown
from tradewind.serve.features import Fetched, Outcome
from tradewind.serve.features.metrics import FeatureMetrics

DEPLOY = pathlib.Path(__file__).parents[2] / "deploy"
DASHBOARD = DEPLOY / "grafana" / "serving.json"
RULES = DEPLOY / "prometheus" / "serving-alerts.yaml"
NAME = re.compile(r"\b(?:tradewind[_:]|nv_inference_|DCGM_)[a-zA-Z0-9_:]+")


def rules() -> list[dict]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def expressions() -> list[str]:
    """Every query of the dashboard and of the rules."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    targets = [target["expr"] for panel in panels for target in panel["targets"]]
    return [*targets, *(rule["expr"] for rule in rules())]


def of_features() -> list[str]:
    """What a server shows that has fetched a user."""
    registry = CollectorRegistry()
    metrics = FeatureMetrics(registry)
    metrics.observe(Fetched(Outcome.HIT))
    metrics.observe_batch("redis", 1)
    return generate_latest(registry).decode().splitlines()


@pytest.fixture(scope="module")
def series(recommend_server: Server, client: httpx2.Client) -> dict[str, set[str]]:
    """Every series of a server that answered and refused, with a feature store, and of a machine with GPUs, with its labels."""
    url = f"{recommend_server.url}/v1/recommend"
    assert client.post(url, json={"history": ["i1"]}).status_code == 200
    assert client.post(url, json={"history": ["i1"]}, headers={"x-deadline-ms": "0.001"}).status_code == 429
    lines = client.get(f"{recommend_server.url}/metrics").text.splitlines()
    found: dict[str, set[str]] = {}
    for line in [*lines, *of_features(), *shown(nvml())]:
        if line.startswith("# TYPE"):
            _, _, name, kind = line.split()
            names = (
                [name + suffix for suffix in ("_bucket", "_sum", "_count")] if kind == "histogram" else [name]
            )
            found |= {name: found.get(name, set()) for name in names}
        elif not line.startswith("#"):
            name = re.split(r"[{ ]", line)[0]
            found.setdefault(name, set()).update(re.findall(r'(\w+)="', line))
    return found


def test_every_series_that_is_asked_for_exists(series: dict[str, set[str]]) -> None:
    """A metric that was renamed takes its panel and its alert with it, or fails here."""
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    asked = {name for expression in expressions() for name in NAME.findall(expression)}
    assert len(asked) > 15
    assert asked - series.keys() - recorded == set()
    assert {name for name in asked if ":" in name} == recorded, "a rule records what nobody asks for"


def test_every_label_that_is_asked_for_exists(series: dict[str, set[str]]) -> None:
    """Selectors name labels of their series; job and instance come from Prometheus."""
    for expression in expressions():
        for name, selector in re.findall(r"\b((?:tradewind_|DCGM_)\w+)\{([^}]*)\}", expression):
            asked = set(re.findall(r"(\w+)[=!]", selector)) - {"job", "instance"}
            assert asked <= series[name], f"{name} has no label {asked - series[name]}"


def test_alerts_say_what_and_what_to_do() -> None:
    """Each has a severity, a summary and a description, and burn rates look through a long and a short window."""
    alerts = [rule for rule in rules() if "alert" in rule]
    for alert in alerts:
        assert alert["labels"]["severity"] in ("page", "ticket")
        assert alert["annotations"].keys() == {"summary", "description"}
    burns = [alert["expr"] for alert in alerts if alert["alert"] == "TradewindBudgetBurn"]
    assert len(burns) == 4
    for expression in burns:
        assert len(set(re.findall(r"ratio_rate(\w+)", expression))) == 2
    for expression in expressions():
        assert expression.count("(") == expression.count(")")
        assert expression.count("{") == expression.count("}")


@pytest.fixture
def promtool() -> str:
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is not on PATH (Debian: apt-get install prometheus): PromQL is not parsed here")
    return found


def said(*command: str) -> tuple[int, str]:
    """The exit code, and what was printed."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    return done.returncode, done.stdout


def test_every_query_is_promql(promtool: str, tmp_path: pathlib.Path) -> None:
    """promtool reads the rules, and the dashboard's queries as if they were rules."""
    code, text = said(promtool, "check", "rules", str(RULES))
    assert code == 0, text
    assert f"SUCCESS: {len(rules())} rules found" in text
    queries = [text.replace("$__rate_interval", "5m").replace("$job", ".*") for text in expressions()]
    recorded = [{"record": f"query:{number}", "expr": text} for number, text in enumerate(queries)]
    file = tmp_path / "queries.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": recorded}]}))
    code, text = said(promtool, "check", "rules", str(file))
    assert code == 0, text
    assert f"SUCCESS: {len(queries)} rules found" in text


def test_alerts_fire_when_they_should(promtool: str) -> None:
    """Overload burns the budget and is told; half a percent late and clients' own mistakes are not."""
    code, text = said(promtool, "test", "rules", str(RULES.with_suffix(".test.yaml")))
    assert code == 0, text
    assert text.rstrip().endswith("SUCCESS")
