"""Fixtures that every test may ask for: real services, started when first asked for."""

from tradewind.serve import compiled

pytest_plugins = [
    "tests.services.postgres",
    "tests.services.redis",
    "tests.services.s3",
    "tests.services.kubernetes",
    "tests.services.crds",
    "tests.services.kubelet_logs",
]


def pytest_configure(config):
    """What is tested is what is there: no module that was compiled from older sources."""
    compiled.check()
