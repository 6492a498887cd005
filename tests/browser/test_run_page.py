"""The page of a run in a real browser."""

import pytest

from cvtrain.pages.run_page import write_run_page
from tests.pages.runs_for_tests import class_names, write_run


@pytest.fixture(scope="module")
def page_path(tmp_path_factory):
    counts = {split: list(range(15)) for split in ("train", "val", "test")}
    run = write_run(tmp_path_factory.mktemp("page") / "run", class_names(15), material={"class_counts": counts})
    return write_run_page(run)


def test_classes_are_sorted_by_a_click(open_page, page_path):
    page = open_page(page_path)
    names = page.texts("#classes tbody th")
    page.script("document.querySelector('#classes thead button').click()")
    page.script("document.querySelector('#classes thead button').click()")
    assert page.texts("#classes tbody th") == sorted(names, key=lambda name: int(name.split()[1]), reverse=True)


def test_curve_shows_its_values_under_the_pointer(open_page, page_path):
    page = open_page(page_path)
    page.hover(page.find("#curves svg"), across=0.95)
    shown = page.script("return document.body.innerText")
    assert "1.2" in shown
    assert page.requests() == []


@pytest.mark.parametrize(("width", "dark"), [(360, False), (1200, True)])
def test_page_fits_its_window(open_page, page_path, width, dark):
    assert not open_page(page_path, width=width, dark=dark).is_wider_than_the_window
