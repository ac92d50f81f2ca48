"""Markup that cannot be injected into: text is escaped unless it is already `Html`."""

import html
from typing import Any


class Html(str):
    """Text that is markup already."""

    __slots__ = ()


Child = str | None


def tag(name: str, /, *children: Child, **attributes: Any) -> Html:
    """An element; strings that are not `Html` and all attribute values are escaped.

    `class_` means class, `_` in a name means `-`; an attribute that is None or False is left out.
    """
    pairs = []
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        text = f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
        pairs.append(f' {key.rstrip("_").replace("_", "-")}="{html.escape(text)}"')
    opening = f"<{name}{''.join(pairs)}>"
    if name in ("meta", "link", "br", "input"):
        return Html(opening)
    return Html(f"{opening}{join(*children)}</{name}>")


def join(*children: Child) -> Html:
    """Markup of several children, one after the other."""
    return Html("".join(child if isinstance(child, Html) else html.escape(child or "") for child in children))


def table(header: list[str], rows: list[list[Child]], numeric_from: int = 1) -> Html:
    """A table whose columns from `numeric_from` on are aligned as numbers."""

    def line(cells: list[Child], kind: str) -> Html:
        return tag(
            "tr",
            *(tag(kind, cell, class_="n" if at >= numeric_from else None) for at, cell in enumerate(cells)),
        )

    head = tag("thead", line(list(header), "th"))
    body = tag("tbody", *(line(row, "td") for row in rows))
    return tag("div", tag("table", head, body), class_="scroll")
