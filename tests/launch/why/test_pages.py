"""Every code has a page, and every page a code."""

import pathlib

from tradewind.launch.why import Code

PAGES = pathlib.Path(__file__).parents[3] / "docs" / "why"


def test_every_code_has_a_page_of_its_own() -> None:
    """The pages are named by the codes, say how to see it by hand and what to do, and are in the index."""
    assert {path.stem for path in PAGES.glob("*.md")} == {*map(str, Code), "index"}
    index = (PAGES / "index.md").read_text()
    for code in Code:
        page = (PAGES / f"{code}.md").read_text()
        assert page.startswith(f"# {code}\n")
        assert "## By hand\n" in page
        assert "## What to do\n" in page
        assert f"({code}.md)" in index
