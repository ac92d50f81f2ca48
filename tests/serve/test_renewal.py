"""Files that are read again: when they change, when asked, and not when they are broken."""

import asyncio
import os
import pathlib

import pytest

from tradewind.errors import SpecError
from tradewind.serve import renewal
from tradewind.serve.renewal import Renewal, keep_renewed


def test_a_change_is_seen_once(tmp_path: pathlib.Path):
    """By its content's time or size, or because another file took its name."""
    path, renewed = tmp_path / "file", []
    path.write_text("a")

    async def renew() -> None:
        renewed.append(path.read_text())

    async def main() -> None:
        renewal = Renewal("file", [path], renew)
        await renewal.look()
        assert renewed == []
        path.write_text("bb")
        await renewal.look()
        await renewal.look()
        assert renewed == ["bb"]
        (tmp_path / "other").write_text("cc")
        os.replace(tmp_path / "other", path)
        await renewal.look()
        assert renewed == ["bb", "cc"]
        await renewal.look(asked=True)
        assert renewed == ["bb", "cc", "cc"]

    asyncio.run(main())


def test_a_file_that_is_not_whole_changes_nothing_and_the_next_one_is_read(tmp_path: pathlib.Path):
    """The error is the log's; serving goes on."""
    path, renewed = tmp_path / "file", []
    path.write_text("a")

    async def renew() -> None:
        if path.read_text() == "broken":
            raise SpecError("broken")
        renewed.append(path.read_text())

    async def main() -> None:
        renewal = Renewal("file", [path], renew)
        path.write_text("broken")
        await renewal.look()
        path.unlink()
        await renewal.look(asked=False)
        path.write_text("good")
        await renewal.look()
        assert renewed == ["good"]

    asyncio.run(main())


def test_asking_looks_at_once(monkeypatch: pytest.MonkeyPatch):
    """As SIGHUP does: each time once, also where nothing has changed, however long it is until the next look."""
    monkeypatch.setattr(renewal, "LOOK_EVERY_S", 1e6)
    renewed: list[int] = []

    async def main() -> None:
        asked, done = asyncio.Event(), asyncio.Event()

        async def renew() -> None:
            renewed.append(len(renewed))
            done.set()

        task = asyncio.create_task(keep_renewed([Renewal("nothing", [], renew)], asked))
        for times in (1, 2):
            done.clear()
            asked.set()
            await done.wait()
            await asyncio.sleep(0)  # the look ends, and another would begin if it was still asked for
            assert len(renewed) == times
            assert not asked.is_set()
        task.cancel()

    asyncio.run(main())
