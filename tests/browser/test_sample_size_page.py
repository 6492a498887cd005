"""The page of a sample-size study in a real browser: reading values, switching curves, sorting, narrow and dark."""

import json

import pytest

from cvtrain.pages.sample_size_page import write_sample_size_page
from tests.pages.study_for_tests import study


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    folder = study(
        tmp_path_factory.mktemp("page") / "study", "target=0.8", "validate=true", failures=[(500, 9, "lost")]
    )
    return write_sample_size_page(folder)


def chart(page):
    return page.find("#curve svg[data-x]")


def test_pointing_at_a_mean_tells_size_interval_and_runs(open_page, path):
    page = open_page(path)
    means = page.find_all("#curve g[data-name='mean, 95 % interval'] .marker")
    assert len(means) == 6
    page.hover(means[1])
    text = page.find("#curve .reading").text
    assert text.startswith("images per class 20\n")
    point = json.loads((path.parent / "learning_curve.json").read_text())["points"][1]
    mean, low, high = (f"{100 * point[name]:.1f}" for name in ("mean", "low", "high"))
    assert f"mean, 95 % interval: {mean} % [{low}, {high}] · 3 runs" in text


def test_curves_are_switched_on_and_off(open_page, path):
    page = open_page(path)
    for name, is_shown in (("log-linear fit", False), ("fit, 95 % interval", True)):
        key = next(key for key in page.find_all("#curve .key") if key.text == name)
        line = page.find(f"#curve g[data-name='{name}'] .line")
        assert line.is_displayed() == is_shown
        key.click()
        assert line.is_displayed() != is_shown


def test_trainings_are_sorted_and_found(open_page, path):
    page = open_page(path)
    page.find("#trainings th:nth-child(3) button").click()
    accuracies = [float(text.removesuffix(" %")) for text in page.texts("#trainings tbody td:nth-child(3)")]
    assert accuracies == sorted(accuracies, reverse=True)
    assert len(accuracies) == 18
    page.find("#trainings .filter").send_keys("early")
    assert len([row for row in page.find_all("#trainings tbody tr") if row.is_displayed()]) == 6


@pytest.mark.parametrize("dark", [False, True])
def test_phone_pushes_no_page_to_the_side(open_page, path, dark):
    page = open_page(path, width=360, height=800, dark=dark)
    assert not page.is_wider_than_the_window
    page.find("#curve summary").click()
    assert not page.is_wider_than_the_window
    assert chart(page).is_displayed()
