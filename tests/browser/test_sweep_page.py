"""The page of a sweep in a real browser."""

import pytest

from cvtrain.pages.sweep_page import write_sweep_page
from tests.pages.sweeps_for_tests import JobForTests, grid_of_two, write_sweep


@pytest.fixture(scope="module")
def page_path(tmp_path_factory):
    failed = JobForTests({"optimizer": "muon", "seed": "0"}, status="failed", error="diverged", exit_code=5)
    return write_sweep_page(write_sweep(tmp_path_factory.mktemp("page") / "s", [*grid_of_two(), failed]))


def test_leaderboard_is_sorted_by_a_click(open_page, page_path):
    page = open_page(page_path)
    heading = next(e for e in page.find_all("#leaderboard thead button") if e.text.startswith("test"))
    page.script("arguments[0].click()", heading)
    column = [text.startswith("test") for text in page.texts("#leaderboard thead th")].index(True) + 1
    shown = page.texts(f"#leaderboard tbody td:nth-child({column})")[:4]
    assert shown in (["69.0 %", "70.0 %", "79.0 %", "80.0 %"], ["80.0 %", "79.0 %", "70.0 %", "69.0 %"])
    page.script("arguments[0].click()", heading)
    assert page.texts(f"#leaderboard tbody td:nth-child({column})")[:4] == shown[::-1]


def test_curve_of_a_job_is_switched_off_and_on(open_page, page_path):
    page = open_page(page_path)
    chart = next(e for e in page.find_all("#curves .chart") if "accuracy of each run" in e.text)
    key = next(e for e in chart.find_elements("css selector", "button.key") if "adam seed=1" in e.text)
    line = chart.find_element("css selector", 'g.series[data-name="adam seed=1"]')
    assert line.is_displayed()
    page.script("arguments[0].click()", key)
    assert not line.is_displayed()
    page.script("arguments[0].click()", key)
    assert line.is_displayed()


@pytest.mark.parametrize(("width", "dark"), [(360, False), (1200, True)])
def test_page_fits_its_window_and_asks_for_nothing(open_page, page_path, width, dark):
    page = open_page(page_path, width=width, dark=dark)
    assert not page.is_wider_than_the_window
    assert page.requests() == []
