"""Learning curves as charts: which series and marks there are."""

import html
import json
import re

import pytest

from cvtrain.pages.curve_chart import curve_chart
from cvtrain.report.compared_curves import NamedCurve
from cvtrain.report.curves import FittedCurve, MeasuredSizes, SizeMark
from cvtrain.report.learning_curve import TargetMark

SIZES = [10, 100, 1000]
DRAWN = [10 * 10 ** (i / 50) for i in range(131)]


def curve(name="a", *, runs=2, fit=True):
    measured = MeasuredSizes(SIZES, [[0.5, 0.6][:runs]] * 3, [0.4] * 3, [0.7, 0.7, None], "95 % interval")
    values = [0.5 + 0.001 * i for i in range(131)]
    drawn = FittedCurve(DRAWN, values, [v - 0.1 for v in values], [v + 0.1 for v in values], {"other": values})
    return NamedCurve(name, measured, drawn if fit else None)


def series(markup):
    """Name, whether it is shown, and points, of each."""
    found = re.findall(r'class="series s\d( off)?" data-series="\d+" data-name="([^"]*)" data-values="([^"]*)"', markup)
    return {html.unescape(name): (not off, json.loads(html.unescape(values))) for off, name, values in found}


def words(markup):
    return re.findall(r'<text class="words"[^>]*>([^<]*)</text>', markup)


def test_one_curve_shows_runs_means_fit_and_what_lies_beyond():
    drawn = series(curve_chart([curve()], title="t"))
    assert list(drawn) == [
        "single runs", "mean, 95 % interval", "fit, 95 % interval", "fit, beyond what was measured", "other",
    ]  # fmt: skip
    assert len(drawn["single runs"][1]) == 6
    assert drawn["mean, 95 % interval"][1][0] == [10, 0.55, 0.4, 0.7, "2 runs"]
    assert drawn["mean, 95 % interval"][1][2] == [1000, 0.55, None, None, "2 runs"]
    within, beyond = drawn["fit, 95 % interval"][1], drawn["fit, beyond what was measured"][1]
    assert within[-1][0] == beyond[0][0] == 1000, "the lines meet"
    assert beyond[-1][0] == pytest.approx(DRAWN[-1])
    assert not drawn["other"][0], "others' forms are switched off at first"
    assert all(is_shown for name, (is_shown, _) in drawn.items() if name != "other")


def test_several_curves_show_their_means_and_fits_under_their_names():
    drawn = series(curve_chart([curve("mlp"), curve("vgg", fit=False)], title="t"))
    assert list(drawn) == ["mlp", "mlp, fit, 95 % interval", "mlp, fit, beyond what was measured", "vgg"]


def test_single_runs_of_one_each_are_the_means():
    assert "single runs" not in series(curve_chart([curve(runs=1)], title="t"))


def test_answers_stand_at_their_sizes():
    target, elbow = TargetMark(0.55, "", 45.2, 30, 60), SizeMark(101, "", 90, None)
    markup = curve_chart([curve()], title="t", target=target, elbow=elbow)
    assert words(markup) == ["target 55 %: 45 per class", "elbow: 101 per class"]
    assert markup.count('class="band"') == 2


def test_target_that_the_drawing_does_not_reach_is_a_level_alone():
    for size in (None, 10**6):
        markup = curve_chart([curve()], title="t", target=TargetMark(0.99, "", size, 5, None))
        assert words(markup) == ["target 99 %"]
        assert 'class="band"' not in markup


def test_level_of_guessing_is_drawn_where_it_is_near():
    assert words(curve_chart([curve()], title="t", chance_accuracy=0.35)) == ["guessing 35 %"]
    assert words(curve_chart([curve()], title="t", chance_accuracy=0.01)) == []
