"""Fixtures that every test may ask for: real services, started when first asked for."""

pytest_plugins = [
    "tests.services.postgres",
    "tests.services.redis",
    "tests.services.s3",
    "tests.services.kubernetes",
    "tests.services.crds",
    "tests.services.kubelet_logs",
]
