"""Fixtures that every test may ask for: real services, started when first asked for."""

from tradewind.serve import extensions

pytest_plugins = [
    "tests.services.compiled",
    "tests.services.postgres",
    "tests.services.redis",
    "tests.services.s3",
    "tests.services.kubernetes",
    "tests.services.crds",
    "tests.services.kubelet_logs",
]


def pytest_configure(config):
    """What is tested is what is there: no module that was compiled from older sources."""
    extensions.check()
