"""A compiled module runs in place of its source: only of the source that lies beside it."""

import hashlib
import json

import pytest

from tradewind.errors import IntegrityError
from tradewind.serve import extensions

SOURCE = b"x = 1\n"


@pytest.fixture
def folder(tmp_path):
    """A source in a folder below, compiled, and what it was compiled from."""
    (tmp_path / "http").mkdir()
    (tmp_path / "http" / "message.py").write_bytes(SOURCE)
    (tmp_path / "http" / "message.cpython-311-x86_64-linux-gnu.so").touch()
    digest = hashlib.sha256(SOURCE).hexdigest()
    (tmp_path / extensions.RECORD).write_text(json.dumps({"http/message.py": digest}))
    return tmp_path


def test_a_module_compiled_from_what_lies_beside_it_may_run(folder):
    extensions.check(folder)


def test_sources_alone_may_run(folder):
    """There is nothing that could run in their place, whatever the record says."""
    next(folder.rglob("*.so")).unlink()
    (folder / "http" / "message.py").write_bytes(b"x = 2\n")
    extensions.check(folder)


def test_a_module_compiled_from_another_source_may_not_run(folder):
    (folder / "http" / "message.py").write_bytes(b"x = 2\n")
    with pytest.raises(IntegrityError, match=r"message\.cpython.*make setup"):
        extensions.check(folder)


def test_a_module_that_nobody_recorded_may_not_run(folder):
    """As after a build that was broken off."""
    (folder / extensions.RECORD).unlink()
    with pytest.raises(IntegrityError, match="make setup"):
        extensions.check(folder)


def test_what_is_an_extension_is_told_from_a_source():
    assert extensions.is_compiled("msgspec._core")
    assert not extensions.is_compiled("tradewind.serve.extensions")
