"""Histograms and counters as Prometheus has them."""

import random

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from tradewind.serve.series import Counts, Histograms

BOUNDS = (0.001, 0.5, 1.0, 64)


def test_the_exposition_is_that_of_the_client_library():
    """Buckets that hold their bound, their sum and count, by label; the same text for the same values."""
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    made = Histograms("took_seconds", "What it took.", "model", BOUNDS, ours)
    reference = Histogram("took_seconds", "What it took.", ["model"], buckets=BOUNDS, registry=theirs)
    drawn = random.Random(0)
    for value in (*BOUNDS, 0.0, 100.0, *(drawn.expovariate(1.0) for _ in range(200))):
        for model in ("a", "b"):
            made.of(model).observe(value)
            reference.labels(model).observe(value)
    kept = [line for line in generate_latest(theirs).splitlines() if b"_created" not in line]
    assert generate_latest(ours).splitlines() == kept


def test_a_label_that_was_never_seen_has_no_series():
    registry = CollectorRegistry()
    Histograms("took_seconds", "What it took.", "model", BOUNDS, registry)
    assert generate_latest(registry).splitlines() == [
        b"# HELP took_seconds What it took.",
        b"# TYPE took_seconds histogram",
    ]


def test_counts_are_those_of_the_client_library():
    """By labels, whatever their type."""
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    made = Counts("requests", "Requests answered.", ("route", "code"), ours)
    reference = Counter("requests", "Requests answered.", ["route", "code"], registry=theirs)
    for route, code in (("infer", 200), ("infer", 429), ("infer", 200), ("health", 200)):
        made.inc(route, code)
        reference.labels(route, code).inc()
    kept = [line for line in generate_latest(theirs).splitlines() if b"_created" not in line]
    assert generate_latest(ours).splitlines() == kept
