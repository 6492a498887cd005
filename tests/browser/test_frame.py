"""What all pages share, in a real browser: tables, charts, colours, widths, and that nothing leaves the page."""

import re

import pytest

from cvtrain.report.words import NOTHING, WRITERS
from tests.page_for_tests import HOSTILE, page_of_every_part


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return page_of_every_part(tmp_path_factory.mktemp("page"))


@pytest.fixture
def page(open_page, path):
    return open_page(path)


def column(page, number):
    return page.texts(f"#figures tbody tr > :nth-child({number})")


def test_names_of_any_kind_are_shown_as_text_and_run_nothing(page):
    page.hover(page.find("#lines svg[data-x]"))
    page.hover(page.find("#matrix svg"), across=0.5, down=0.3)
    assert page.script("return document.title") == "Every part"
    assert page.find_all("main img[src='x'], main b[onmouseover], main script") == []
    shown = page.texts("#figures tbody th")
    assert shown[-8:-2] == [*HOSTILE[:6]]
    assert shown[-2] == "right \\u202eto left"
    assert page.texts(".warnings li")[0] == HOSTILE[0]
    links = page.script("return [...document.querySelectorAll('main a')].map((a) => a.protocol)")
    assert links == ["file:", "file:"]


def test_nothing_is_asked_of_the_network(page):
    assert (
        page.script("return performance.getEntriesByType('resource').filter((e) => !e.name.startsWith('data:'))") == []
    )
    assert page.requests() == []


def test_policy_stops_what_a_page_should_not_hold(page):
    page.script("document.body.insertAdjacentHTML('beforeend', '<img src=\"http://127.0.0.1:9/x.png\">')")
    page.script("const s = document.createElement('script'); s.textContent = 'window.ran = 1'; document.body.append(s)")
    page.script(
        "document.body.insertAdjacentHTML('beforeend', '<p style=\"color: red\" onclick=\"window.ran = 1\" id=p>x</p>')"
    )
    page.find("#p").click()
    assert page.script("return window.ran === undefined")
    assert page.color_of("#p") == page.color_of("body")
    stopped = {re.search(r"directive:? ['\"]([a-z-]+)", message)[1] for message in page.complaints()}
    assert stopped == {"img-src", "script-src", "style-src"}


def test_a_click_sorts_numbers_and_leaves_what_is_none_last(page):
    head = page.find("#figures th:nth-child(2)")
    head.find_element("tag name", "button").click()
    falling = column(page, 2)
    assert falling[:2] == ["1,007", "1,006"]
    assert falling[-1] == "failed"
    assert head.get_attribute("aria-sort") == "descending"
    head.find_element("tag name", "button").click()
    assert column(page, 2)[:3] == ["0", "10", "20"]
    assert column(page, 2)[-1] == "failed"
    page.find("#figures th:nth-child(3) button").click()
    assert head.get_attribute("aria-sort") is None
    assert column(page, 3)[0] == "100.0 %"
    assert column(page, 3)[-2:] == [NOTHING, NOTHING]
    assert "42.9 % [40.0, 45.0]" in column(page, 3)[6:18]


def test_text_is_sorted_as_people_do(page):
    page.find("#figures th:nth-child(4) button").click()
    notes = column(page, 4)
    places = [notes.index(note) for note in ("A", "b", "c 9", "c 10")]
    assert places == sorted(places)
    assert notes[-2:] == [NOTHING, NOTHING]


def test_a_table_is_sorted_by_the_keyboard(page):
    page.press(page.find("#figures th:nth-child(2) button"), "\ue007")
    assert page.find("#figures th:nth-child(2)").get_attribute("aria-sort") == "descending"


def test_filter_keeps_the_rows_that_hold_its_words(page):
    box = page.find(".filter")
    box.send_keys("CLASS 1")
    seen = [row.text.split()[1] for row in page.find_all("#figures tbody tr") if row.is_displayed()]
    assert seen == ["1", "10", "11", "12", "13", "14"]
    assert page.texts(".matches") == ["6 of 23 rows"]


def test_a_key_of_the_legend_switches_its_series(page):
    key, series = page.find("#lines .key:nth-child(2)"), page.find("#lines .series[data-series='1']")
    assert series.is_displayed()
    key.click()
    assert not series.is_displayed()
    assert key.get_attribute("aria-pressed") == "false"
    page.hover(page.find("#lines svg[data-x]"), across=0.3, down=0.4)
    assert len(page.find_all("#lines .reading div")) == 1
    page.press(key, " ")
    assert series.is_displayed()


def test_all_of_many_series_are_switched_at_once(page):
    show, hide = page.find_all("#many .all")
    hide.click()
    assert page.find_all("#many .series:not(.off)") == []
    show.click()
    assert len(page.find_all("#many .series:not(.off)")) == 8


def test_hover_shows_the_values_of_all_series_at_the_nearest_place(page):
    svg = page.find("#lines svg[data-x]")
    first, last = page.script("const x = JSON.parse(arguments[0].dataset.x); return [x.low, x.high]", svg)
    start, end = page.script("const x = JSON.parse(arguments[0].dataset.x); return [x.start / 560, x.end / 560]", svg)
    page.hover(svg, across=start + (2.1 - first) / (last - first) * (end - start))
    assert page.texts("#lines .reading b") == ["epoch 2"]
    assert page.texts("#lines .reading div") == ["train: 50.0 %", f"{HOSTILE[0]}: 50.0 % [45.0, 55.0]"]
    page.hover(svg, across=start + (4.9 - first) / (last - first) * (end - start))
    assert page.texts("#lines .reading div") == ["train: 65.0 %"]  # the other has a gap there
    page.hover(page.find("h1"))
    assert not page.find("#lines .reading").is_displayed()


def test_arrow_keys_step_through_the_values(page):
    svg = page.find("#lines svg[data-x]")
    for keys, shown in [("\ue014", "epoch 1"), ("\ue014\ue014", "epoch 3"), ("\ue012", "epoch 2")]:
        page.press(svg, keys)
        assert page.texts("#lines .reading b") == [shown]
    page.press(svg, "\ue00c")
    assert not page.find("#lines .reading").is_displayed()


def test_points_bars_and_cells_tell_their_values(page):
    page.press(page.find("#points svg[data-x]"), "\ue014")
    assert page.texts("#points .reading") == [f"{HOSTILE[0]}seeds: 50.0 % · {HOSTILE[0]}"]
    page.press(page.find("#bars svg[data-x]"), "\ue014\ue014")
    assert page.texts("#bars .reading div") == ["train: 20", "test: 2"]
    page.press(page.find("#matrix svg"), "\ue014\ue014")
    assert page.texts("#matrix .reading b") == ["2 of 10 (20.0 %)"]
    page.press(page.find("#matrix svg"), "\ue015\ue015")
    assert page.texts("#matrix .reading b") == ["0 of 0"]


@pytest.mark.parametrize("chart", ["points", "cost"])
def test_spot_stands_on_the_point_that_is_drawn(page, chart):
    """The script computes places from values; the drawing has them from Python."""
    svg = page.find(f"#{chart} svg[data-x]")
    drawn = page.script(
        "return [...arguments[0].querySelectorAll('.marker')].map((m) => [m.cx.baseVal.value, m.cy.baseVal.value])", svg
    )
    for i in range(4):
        page.press(svg, "\ue014")
        spot = page.script(
            "const s = arguments[0].querySelector('.spot'); return [s.cx.baseVal.value, s.cy.baseVal.value]", svg
        )
        assert spot == pytest.approx(drawn[i], abs=0.11)


def test_script_writes_values_as_the_page_does(page):
    values = [0.0, 0.05, 1e-6, 0.8312, 1.0, 2.345678, 59.96, 89.0, 125.4, 6000.0, 12345.0, -1.5e7]
    for kind, write in WRITERS.items():
        shown = page.script("return arguments[0].map((v) => written({kind: arguments[1], names: []}, v))", values, kind)
        assert shown == [write(value) for value in values]


def test_copy_button_tells_that_it_has_worked(page):
    page.find(".copy").click()
    page.script("return new Promise((done) => setTimeout(done, 200))")
    assert page.find(".copy").text in ("Copied", "Selected")


def test_night_has_other_colours(open_page, path):
    page = open_page(path)
    selectors = [("body", "background-color"), ("body", "color"), ("#lines .s0 .line", "stroke")]
    day = [page.color_of(*selector) for selector in selectors]
    night = [open_page(path, dark=True).color_of(*selector) for selector in selectors]
    assert day[0] == "rgba(255, 255, 255, 1)"
    assert all(a != b for a, b in zip(day, night, strict=True))


@pytest.mark.parametrize("width", [360, 800, 1200])
def test_page_is_never_pushed_to_the_side(open_page, path, width):
    page = open_page(path, width=width, height=800)
    assert not page.is_wider_than_the_window


def test_letters_of_charts_can_be_read_on_a_phone(open_page, path):
    page = open_page(path, width=360, height=800)
    heights = page.script(
        """return [...document.querySelectorAll('.chart svg[role=img]')].map((svg) => Math.min(
             ...[...svg.querySelectorAll('text')].map((t) => parseFloat(getComputedStyle(t).fontSize))
           ) * svg.getScreenCTM().a)"""
    )
    assert len(heights) == 6
    assert min(heights) >= 10


def test_paper_shows_what_the_screen_shows(page):
    page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print", "features": []})
    assert not page.find("nav").is_displayed()
    assert page.find("#lines .series").is_displayed()
    assert page.find("#figures tbody tr:last-child").is_displayed()
    assert page.color_of("#figures .scroll", "max-height") == "none"


def test_without_the_script_charts_are_whole(open_page, path):
    page = open_page(path)
    page.browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        page.browser.refresh()
        assert all(e.is_displayed() for e in page.find_all("#lines .line, #points .marker, #bars .bar, #matrix .cell"))
        assert not page.find(".copy").is_displayed()
        assert page.find_all("#lines .key:enabled, .filter, th button") == []
    finally:
        page.browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
