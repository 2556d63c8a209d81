"""How the tests read a page."""

import re
from html.parser import HTMLParser


class Page(HTMLParser):
    """Tags with their attributes, and the text outside style sheets."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.text, self.inside = [], "", ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.inside = tag

    def handle_data(self, data):
        if self.inside != "style":
            self.text += data


def words_of(text):
    """The text with single, ordinary spaces."""
    return " ".join(text.replace("\xa0", " ").split())


def assert_loads_nothing(page):
    """Neither scripts nor anything from elsewhere."""
    for tag, attributes in Page(page).tags:
        assert tag not in {"script", "link", "iframe", "object", "embed", "img"}
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href", "xlink:href"):
            assert attributes.get(name, "#").startswith("#")
    assert all(url.startswith("#") for url in re.findall(r"url\(([^)]*)\)", page))
    assert "@import" not in page


def assert_references_resolve(page):
    """Ids are there once, and every reference has its target."""
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    used = re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', page)
    assert {a or b for a, b in used} <= set(ids)
