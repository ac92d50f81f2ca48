"""Fixtures that every test may ask for: real services, started when first asked for."""

import os

import pytest

from tradewind import names
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


@pytest.fixture(scope="session", autouse=True)
def home_of_the_tests(tmp_path_factory):
    """What is kept between starts is kept for these tests alone, where nobody says otherwise."""
    with pytest.MonkeyPatch.context() as patch:
        if names.ENV_HOME not in os.environ:
            patch.setenv(names.ENV_HOME, str(tmp_path_factory.mktemp("home")))
        yield
