"""The frame of all pages: one safe file, written in one move, that says only what it is given."""

import base64
import hashlib
import math
import os
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from jinja2 import UndefinedError

from cvtrain.errors import OutputError
from cvtrain.report import page, words
from cvtrain.report.page_parts import Cell, Column, Picture, cell_of
from tests.page_for_tests import HOSTILE, page_of_every_part, png

VOID = {"meta", "img", "br", "input"}


class Elements(HTMLParser):
    """Reads a page into its elements and their texts; checks that what is opened is closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.found, self.text = [], [], ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, self.getpos()

    def handle_data(self, data):
        self.text += data

    def of(self, tag):
        return [attributes for name, attributes in self.found if name == tag]


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return page_of_every_part(tmp_path_factory.mktemp("page")).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def elements(text):
    return Elements(text)


def test_page_is_one_whole_document_without_addresses_of_other_machines(text, elements):
    assert text.startswith("<!doctype html>")
    assert elements.of("html") == [{"lang": "en"}]
    assert elements.of("link") == elements.of("iframe") == elements.of("base") == []
    addresses = [a[name] for _, a in elements.found for name in ("src", "href") if name in a]
    assert addresses
    assert all(a.startswith(("data:image/png;base64,", "#", "./")) for a in addresses), addresses


def test_elements_hold_neither_handlers_nor_styles(elements):
    for tag, attributes in elements.found:
        assert not [name for name in attributes if name.startswith("on") or name == "style"], tag


def test_names_become_text_and_only_that(text, elements):
    for name in HOSTILE[:6]:
        assert name in elements.text
    assert "right \\u202eto left" in elements.text
    assert "\u202e" not in text
    assert len(elements.of("script")) == len(elements.of("style")) == 1
    assert len(elements.of("img")) == 1


def test_policy_names_the_very_style_and_script_of_the_page(text, elements):
    policy = elements.of("meta")[1]["content"]
    assert policy.startswith("default-src 'none'; img-src data:; ")
    assert "unsafe" not in policy
    for tag in ("style", "script"):
        inner = re.search(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)[1]
        digest = base64.b64encode(hashlib.sha256(inner.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy


def test_navigation_leads_to_every_section(elements):
    ids = [a["id"] for a in elements.of("section")]
    assert ids == ["figures", "charts", "pictures", "command"]
    assert [a["href"] for a in elements.of("a")][:4] == [f"#{i}" for i in ids]


def test_ids_are_there_once(elements):
    ids = [a["id"] for _, a in elements.found if "id" in a]
    assert len(ids) == len(set(ids))


def test_foot_tells_the_version_and_the_command(elements):
    assert "Made by cvtrain 0.1.0" in elements.text
    assert "cvtrain task=report run=RUN" in elements.text


def test_the_same_content_is_the_same_file(tmp_path, text):
    assert page_of_every_part(tmp_path).read_text(encoding="utf-8") == text


def test_a_name_that_is_not_given_is_an_error_and_the_old_page_stays(tmp_path):
    (tmp_path / "report.html").write_text("old")
    template = '{% extends "base.html" %}{% block content %}{{ forgotten }}{% endblock %}'
    with pytest.raises(UndefinedError, match="forgotten"):
        page_of_every_part(tmp_path, template=template)
    assert (tmp_path / "report.html").read_text() == "old"


def test_expressions_of_every_kind_are_escaped(tmp_path):
    template = """{% extends "base.html" %}{% block content %}
    <p>{{ names[0] ~ names[1] }} {{ names | join(", ") }} {{ names }} {{ "%s" | format(names[6]) }}</p>
    <p>{{ none_at_all }}</p>
    {% endblock %}"""
    text = page_of_every_part(tmp_path, template=template, none_at_all=None).read_text(encoding="utf-8")
    assert len(Elements(text).of("script")) == 1
    assert "\u202e" not in text
    assert "None" not in text.partition("<main>")[2]


def test_too_large_a_page_is_refused_and_the_old_one_stays(tmp_path):
    (tmp_path / "report.html").write_text("old")
    large = Picture(b"\x89PNG" + bytes(2_400_000), "large")
    with pytest.raises(page.PageTooLargeError, match=r"report\.html would have 3\.3 MB, more than 3 MB"):
        page_of_every_part(tmp_path, pictures=[large])
    assert (tmp_path / "report.html").read_text() == "old"
    assert list(tmp_path.glob(".*")) == []


def test_page_that_cannot_be_written_says_where(tmp_path):
    (tmp_path / "report.html").mkdir()
    with pytest.raises(OutputError, match=r"cannot write .*report\.html"):
        page_of_every_part(tmp_path)
    assert list(tmp_path.glob(".*")) == []


def test_a_reader_sees_the_old_or_the_new_page(tmp_path):
    path = page_of_every_part(tmp_path)
    with path.open(encoding="utf-8") as old:
        page_of_every_part(tmp_path, title="Another")
        assert "<title>Every part</title>" in old.read()
    assert "<title>Another</title>" in path.read_text(encoding="utf-8")


def test_names_with_stray_bytes_are_shown_and_linked(tmp_path):
    name = os.fsdecode(b"caf\xe9.png")
    text = page_of_every_part(tmp_path, names=(name,) * 8).read_text(encoding="utf-8")
    assert "caf\\udce9.png" in text
    assert 'href="./caf%E9.png"' in text


def test_templates_hold_nothing_that_the_policy_forbids():
    for path in page.TEMPLATES_DIR.glob("*.html"):
        text = path.read_text(encoding="utf-8").partition("#}")[2] if path.name == "parts.html" else path.read_text()
        assert not re.search(r"\sstyle=|\son[a-z]+=|https?:|\|\s*safe|autoescape", text), path.name


def test_script_and_style_keep_nothing_and_ask_for_nothing():
    script = (page.TEMPLATES_DIR / "page.js").read_text(encoding="utf-8")
    assert not re.search(
        r"innerHTML|outerHTML|eval\(|Function\(|Storage|fetch\(|XMLHttp|import\b|document\.write", script
    )
    style = (page.TEMPLATES_DIR / "page.css").read_text(encoding="utf-8")
    assert "url(" not in style
    assert "@import" not in style
    assert "</" not in script + style


# --------------------------------------------------------------------------------------------- cells and words


@pytest.mark.parametrize(
    ("value", "kind", "text", "number"),
    [
        (0.8312, "percent", "83.1 %", 0.8312),
        (12345, "count", "12,345", 12345.0),
        (np.float32(0.5), "percent", "50.0 %", 0.5),
        (125, "seconds", "2 min 05 s", 125.0),
        (None, "count", words.NOTHING, None),
        (math.nan, "number", words.NOTHING, None),
        (np.float32("inf"), "number", words.NOTHING, None),
        ("", "text", words.NOTHING, None),
        ("more than 500", "count", "more than 500", None),
        (3, "text", "3", None),
    ],
)
def test_a_value_is_written_and_sorted_as_its_column_says(value, kind, text, number):
    assert cell_of(value, Column("", kind)) == Cell(text, number)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.05, "0.05"),
        (1e-6, "1e-6"),
        (0.000123456, "0.0001235"),
        (2.345678, "2.346"),
        (12345.4, "12,345"),
        (999999.6, "1e6"),
        (-1.5e7, "-1.5e7"),
        (math.inf, words.NOTHING),
    ],
)
def test_numbers_have_four_digits(value, text):
    assert words.number(value) == text


def test_intervals_hold_their_ends_where_there_are_any():
    assert words.interval(0.8312, 0.823, 0.838) == "83.1 % [82.3, 83.8]"
    assert words.interval(0.8312, None, 0.838) == "83.1 %"
    assert words.interval(None, None, None) == words.NOTHING


@pytest.mark.parametrize("path", ["javascript:alert(1)", "//example.org/x", "a?b#c", "data:text/html,x"])
def test_links_lead_to_files_beside_the_page(path):
    link = Cell("x", path=path).link
    assert link.startswith("./")
    assert not set(link) & set(":?#")


def test_pictures_tell_their_kind():
    assert Picture(png(), "a").source.startswith("data:image/png;base64,iVBOR")
    assert Picture(b"\xff\xd8\xff", "a").source == "data:image/jpeg;base64,/9j/"
