"""Markup is built such that text cannot become markup."""

from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from tradewind.console.markup import Html, join, table, tag


class Reader(HTMLParser):
    """Collects what a browser would see."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=60))
def test_any_text_stays_text(text: str) -> None:
    """Whatever the text and the attribute value, a parser finds one element with exactly them."""
    reader = Reader()
    reader.feed(tag("p", text, title=text))
    reader.close()
    assert reader.tags == ["p"]
    assert reader.attributes == [("title", text)]
    assert reader.text == text


def test_markup_nests_without_being_escaped_twice() -> None:
    """Html inside Html is left as it is, plain text beside it is escaped."""
    assert tag("p", tag("b", "<"), "&") == "<p><b>&lt;</b>&amp;</p>"
    assert join("<", Html("<br>")) == "&lt;<br>"
    assert table(["a"], [["<i>"]]).count("&lt;i&gt;") == 1


def test_attributes_left_out_and_named() -> None:
    """None and False leave an attribute out; class_ and stroke_width become valid names."""
    assert tag("a", class_="x", href=None, stroke_width=1.50) == '<a class="x" stroke-width="1.5"></a>'
