"""Each check says no when it should, and how to get to yes."""

from pathlib import Path

import pytest

from tradewind.console.doctor import (
    check_disk,
    check_extra,
    check_loopback,
    check_open_files,
    check_python,
    check_shared_memory,
    check_store,
    diagnose,
)


def test_this_machine_runs_the_tests_so_it_is_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python, loopback and a fresh store are fine here, and each check appears once."""
    monkeypatch.setenv("TRADEWIND_HOME", str(tmp_path))
    monkeypatch.delenv("TRADEWIND_STORE", raising=False)
    checks = {check.name: check for check in diagnose()}
    assert {"python", "torch", "store", "disk", "shared memory", "open files", "loopback"} <= set(checks)
    assert all(checks[name].ok for name in ("python", "store", "loopback"))
    assert check_loopback().ok


def test_every_no_has_a_remedy(tmp_path: Path) -> None:
    """What is missing comes with what to do about it."""
    (tmp_path / "file").write_text("")
    noes = [
        check_python((3, 10, 0)),
        check_disk(tmp_path, least_gib=1e9),
        check_shared_memory(str(tmp_path / "absent")),
        check_shared_memory(str(tmp_path), least_gib=1e9),
        check_store(f"sqlite:///{tmp_path / 'file' / 'store.db'}"),
        check_store("mongodb://127.0.0.1/x"),
        check_extra("s3", ["obstore"], lambda module: None),
    ]
    for check in noes:
        assert not check.ok, check
        assert check.remedy, check
        assert check.detail, check


def test_open_files_looks_at_the_hard_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A low soft limit is lifted by whoever needs more; a low hard limit is a no."""
    import resource

    monkeypatch.setattr(resource, "getrlimit", lambda which: (256, 1 << 20))
    assert check_open_files().ok
    monkeypatch.setattr(resource, "getrlimit", lambda which: (256, 1024))
    assert not check_open_files().ok


def test_a_store_password_is_not_printed(tmp_path: Path) -> None:
    """The detail of a store never shows the password of its URL."""
    from tradewind.console.doctor import _without_password

    assert _without_password("postgresql://me:secret@db/x") == "postgresql://me@db/x"
    assert _without_password("sqlite:////home/a/store.db") == "sqlite:////home/a/store.db"
    check = check_store("postgresql://me:secret@127.0.0.1:1/x")
    assert not check.ok
    assert "secret" not in check.detail
