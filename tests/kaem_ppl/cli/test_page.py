"""Pages of HTML: what is opened is closed, links lead to sections, and nothing is fetched."""

from html.parser import HTMLParser

import pytest

pytest.importorskip("matplotlib")
from matplotlib.figure import Figure

from kaem_ppl.cli.commands.page import Page


class Reader(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.wrong, self.anchors, self.links, self.sources, self.words = [], [], set(), [], [], []

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.anchors |= {found["id"]} if "id" in found else set()
        self.links += [found["href"]] if "href" in found else []
        self.sources += [found["src"]] if "src" in found else []
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data):
        self.words.append(data)


def test_a_page_is_well_formed_and_complete_in_itself(tmp_path):
    page = Page("A < B & C")
    page.numbers([("epochs", "3"), ("<loss>", "-1.5")])
    page.section("Nothing here")
    page.section("Some figures, & text")
    page.text('a "quoted" <b>word</b>')
    page.listing("1 < 2\n")
    figure = Figure()
    figure.subplots().plot([0, 1])
    page.figure(figure, 'a "line" > 0')
    figure.savefig(tmp_path / "again.png")
    page.file(tmp_path / "again.png", "again")
    page.tables([("settings", [("scale", "0.2"), ("a<b", "c&d")])])
    reader = Reader()
    reader.feed(page.to_html())
    assert (reader.open, reader.wrong) == ([], [])
    assert reader.links == ["#some-figures-text"]
    assert reader.anchors == {"some-figures-text"}
    assert len(reader.sources) == 2
    assert all(source.startswith("data:image/png;base64,") for source in reader.sources)
    text = "".join(reader.words)
    assert 'a "quoted" <b>word</b>' in text
    assert "A < B & C" in text
    assert "c&d" in text
    assert "Nothing here" not in text
