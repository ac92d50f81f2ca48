"""Fixtures that every test may ask for: real services, started when first asked for."""

pytest_plugins = [
    "tests.services.compiled",
    "tests.services.postgres",
    "tests.services.s3",
    "tests.services.kubernetes",
    "tests.services.crds",
    "tests.services.kubelet_logs",
]
