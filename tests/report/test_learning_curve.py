"""The pictures of learning curves: what they hold, that nothing covers anything, that odd sweeps can be drawn."""

from dataclasses import replace
from itertools import combinations
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.collections import PolyCollection
from matplotlib.colors import same_color
from matplotlib.text import Annotation
from PIL import Image

from cvtrain.report.compared_curves import (
    MAX_CURVES,
    ComparedCurvesPlot,
    NamedCurve,
    PairedDifferences,
    compared_curves,
    draw_compared_curves,
)
from cvtrain.report.curves import FittedCurve, MeasuredSizes, SizeMark
from cvtrain.report.frame import COLORS, empty_figure
from cvtrain.report.learning_curve import CurvePlot, TargetMark, draw_learning_curve, learning_curve

SIZES = (10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
BLUE, VERMILION, GREEN = COLORS[:3]


def rising(per_class, *, chance=0.1, best=0.95, half=150.0, slope=0.8):
    """From the level of chance to the best, half way at `half`."""
    return chance + (best - chance) / (1 + (half / np.asarray(per_class, dtype=float)) ** slope)


def measured_sizes(truth=rising, *, sizes=SIZES, num_runs=5, seed=0):
    random = np.random.default_rng(seed)
    runs = [(truth(size) + 0.05 / np.sqrt(size) * random.normal(size=num_runs)).clip(0, 1) for size in sizes]
    half = [2 * np.std(values) if num_runs > 1 else np.nan for values in runs]
    low = [float(np.mean(v) - h) if num_runs > 1 else None for v, h in zip(runs, half, strict=True)]
    high = [float(np.mean(v) + h) if num_runs > 1 else None for v, h in zip(runs, half, strict=True)]
    return MeasuredSizes(sizes, [list(values) for values in runs], low, high, "two sd")


def fitted(truth=rising, *, first=10, last=20_000, half=0.01, others=True):
    sizes = np.geomspace(first, last, 120)
    curve = truth(sizes)
    slopes = {"log-linear": 0.1 + 0.11 * np.log(sizes / 10), "power law": 1 - 0.9 * (sizes / 10) ** -0.35}
    low, high = (curve - half).clip(0, 1), (curve + half).clip(0, 1)
    return FittedCurve(sizes, curve, low, high, slopes if others else {})


def sweep(truth=rising, **changes):
    """A whole plot; what the fit says decides the marks."""
    fields = {
        "title": "resnet18 on cifar10, protocol robust",
        "caption": "9 sizes, 45 runs, 10,000 test images",
        "measured": measured_sizes(truth),
        "fit": fitted(truth),
        "chance_accuracy": 0.1,
        "target": TargetMark(0.92, "92 % needs 8,000 images per class [6,000, 11,000]", 8000, 6000, 11_000),
        "elbow": SizeMark(1100, "elbow at 1,100 [800, 1,500]: from here doubling gains less than 2 points"),
    }
    return CurvePlot(**(fields | changes))


def saturated(per_class):
    return 0.992 - 0.03 * (np.asarray(per_class, dtype=float) / 10) ** -0.6


def two_classes(per_class):
    return rising(per_class, chance=0.5, half=40)


FAR = "80 % is not reached within ten times the largest size; 60 % of the curves that are plausible never reach it"
SMALL = measured_sizes(sizes=(20, 100, 500), num_runs=3)
ODD = {
    "nine sizes": sweep(),
    "three sizes": sweep(measured=SMALL, fit=fitted(first=20, last=2000), target=None),
    "one replicate": sweep(measured=measured_sizes(num_runs=1), elbow=None, target=None),
    "one size": sweep(measured=measured_sizes(sizes=(100,), num_runs=1), fit=None, elbow=None, target=None),
    "two classes": sweep(two_classes, chance_accuracy=0.5, target=TargetMark(0.8, "80 % needs 80", 80, 70, 95)),
    "steep": sweep(lambda n: rising(n, half=400, slope=1.8), elbow=None),
    "saturated": sweep(
        saturated, target=TargetMark(0.98, "98 % needs 47", 47, 38, 60), elbow=SizeMark(30, "elbow at 30")
    ),
    "not reachable": sweep(lambda n: rising(n, best=0.7), target=TargetMark(0.8, FAR)),
    "highest target": sweep(saturated, target=TargetMark(1.0, f"{FAR}; {FAR}"), elbow=None),
    "open interval": sweep(target=TargetMark(0.93, FAR, 12_000, 9000, None)),
    "below all": sweep(target=TargetMark(0.15, "the smallest size reaches 15 %, and so does each other", 10, 10, 10)),
    "no extrapolation": sweep(fit=fitted(last=5000), target=None),
    "late elbow": sweep(elbow=SizeMark(4800, "elbow at 4,800 [2,000, none]: doubling gains less than 2 points")),
    "last elbow": sweep(fit=fitted(last=5000), elbow=SizeMark(5000, "elbow at 5,000 or beyond"), target=None),
    "first elbow": sweep(
        two_classes,
        measured=measured_sizes(two_classes, num_runs=1),
        elbow=SizeMark(10, "elbow at 10: from the smallest size on no doubling gains 10 points"),
        target=None,
        chance_accuracy=None,
    ),
    "no chance, no fit": sweep(chance_accuracy=None, fit=None),
    "perfect, marks outside": sweep(
        measured=MeasuredSizes((10, 50), [[1.0, 1.0]] * 2, [1.0] * 2, [1.0] * 2, "two sd"), fit=None
    ),
    "all equal": sweep(lambda n: 0 * np.asarray(n) + 0.5, fit=None, elbow=None, target=None),
    "crowded": sweep(measured=measured_sizes(sizes=(37, 61, 64, 70, 90, 95, 99, 150, 151, 152, 700)), fit=None),
    "fit from below": sweep(fit=fitted(first=2, last=5000)),
}


def drawn(plot):
    """The figure, laid out."""
    draw, height = (draw_learning_curve, 6.2) if isinstance(plot, CurvePlot) else (draw_compared_curves, 7.6)
    with empty_figure(width=9, height=height) as figure:
        draw(figure, plot)
        figure.draw_without_rendering()
    return figure


def lines(axes, color, *, style=None):
    found = [line for line in axes.lines if same_color(line.get_color(), color)]
    return [line for line in found if style is None or line.get_linestyle() == style]


def bands(axes):
    return [patch for patch in axes.collections if isinstance(patch, PolyCollection)]


def legend_words(figure):
    return [text.get_text() for axes in figure.axes if axes.get_legend() for text in axes.get_legend().get_texts()]


def tick_words(axes):
    return [label.get_text() for label in axes.get_xticklabels()]


def boxes(figure, texts):
    return [text.get_window_extent() for text in texts if text.get_text()]


# ----------------------------------------------------------------------------------------------------- one curve


def test_a_curve_is_one_file_of_the_wanted_format(tmp_path):
    learning_curve(tmp_path / "new" / "curve.png", sweep())
    learning_curve(tmp_path / "new" / "curve.svg", sweep())
    with Image.open(tmp_path / "new" / "curve.png") as image:
        assert image.size == (1170, 806)
    assert ElementTree.parse(tmp_path / "new" / "curve.svg").getroot().tag.endswith("svg")
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["curve.png", "curve.svg"]


def test_ticks_are_plain_numbers_at_the_measured_sizes_and_round_ones_beyond():
    axes = drawn(sweep()).axes[0]
    assert axes.get_xscale() == "log"
    measured = ["10", "20", "50", "100", "200", "500", "1,000", "2,000", "5,000"]
    assert tick_words(axes) == [*measured, "10,000", "20,000"]
    assert list(axes.get_xticks()) == pytest.approx([*SIZES, 10_000, 20_000])


def test_crowded_ticks_are_thinned_and_the_ends_stay():
    axes = drawn(ODD["crowded"]).axes[0]
    words = tick_words(axes)
    assert (words[0], words[-1]) == ("37", "700")
    assert 4 <= len(words) < 11
    labelled = {float(word.replace(",", "")) for word in words}
    assert set(axes.get_xticks(minor=True)) == {37, 61, 64, 70, 90, 95, 99, 150, 151, 152, 700} - labelled
    assert not any(label.get_text() for label in axes.get_xticklabels(minor=True))


def test_means_bars_and_runs_stand_where_they_were_measured():
    plot = sweep(measured=MeasuredSizes((10, 100), [[0.2, 0.4], [0.6]], [0.25, None], [0.38, None], "two sd"))
    figure = drawn(plot)
    (axes,) = figure.axes
    (points, _, (bars,)) = axes.containers[0]
    assert np.allclose(points.get_xydata(), [[10, 30], [100, 60]])
    assert np.allclose(bars.get_segments()[0], [[10, 25], [10, 38]])
    assert np.ptp(bars.get_segments()[1][:, 1]) == 0
    (dots,) = [c for c in axes.collections if len(c.get_offsets()) == 3]
    assert np.allclose(dots.get_offsets(), [[10, 20], [10, 40], [100, 60]])
    assert legend_words(figure)[:2] == ["single run", "mean, two sd"]


def test_single_runs_are_not_drawn_twice():
    figure = drawn(ODD["one replicate"])
    assert "one run at each size" in legend_words(figure)
    assert not {"single run", "mean"} & set(legend_words(figure))


def test_the_fit_is_solid_where_it_was_measured_and_dashed_beyond():
    figure = drawn(sweep())
    (axes,) = figure.axes
    fit, beyond = (line for line in lines(axes, BLUE) if len(line.get_xdata()) > len(SIZES))
    assert (fit.get_linestyle(), beyond.get_linestyle()) == ("-", "--")
    assert (fit.get_xdata()[0], fit.get_xdata()[-1]) == (10, 5000)
    assert (beyond.get_xdata()[0], beyond.get_xdata()[-1]) == pytest.approx((5000, 20_000))
    assert fit.get_ydata()[-1] == beyond.get_ydata()[0] == pytest.approx(100 * rising(5000), abs=0.01)
    assert "beyond what was measured" in legend_words(figure)


def test_the_band_is_the_interval_and_paler_beyond():
    within, beyond = bands(drawn(sweep()).axes[0])
    assert within.get_alpha() > beyond.get_alpha() > 0
    corners = within.get_paths()[0].vertices
    at_end = corners[np.isclose(corners[:, 0], 5000)][:, 1]
    assert (at_end.min(), at_end.max()) == pytest.approx((100 * rising(5000) - 1, 100 * rising(5000) + 1), abs=0.01)


def test_without_extrapolation_nothing_is_dashed():
    figure = drawn(ODD["no extrapolation"])
    assert not lines(figure.axes[0], BLUE, style="--")
    assert "beyond what was measured" not in legend_words(figure)
    assert figure.axes[0].get_xlim()[1] < 6500


def test_other_fits_are_thin_grey_lines_of_two_styles():
    figure = drawn(sweep())
    one, other = (line for line in figure.axes[0].lines if len(line.get_xdata()) == 120)
    assert one._dash_pattern != other._dash_pattern
    assert one.get_linewidth() < 1.5
    assert {"log-linear", "power law"} < set(legend_words(figure))


def test_chance_is_a_line_where_it_is_near_and_a_word_where_it_is_far():
    near = drawn(sweep())
    assert "chance, 10 %" in legend_words(near)
    assert near.axes[0].get_ylim()[0] < 10
    far = drawn(ODD["saturated"])
    assert "chance, 10 % (below)" in legend_words(far)
    assert far.axes[0].get_ylim()[0] > 90


def test_the_target_is_a_line_and_the_images_it_needs_a_mark_on_the_axis():
    (axes,) = drawn(sweep()).axes
    level, drop, mark, bar = lines(axes, VERMILION)
    assert set(level.get_ydata()) == {92}
    assert list(drop.get_xdata()) == [8000, 8000]
    assert (mark.get_marker(), list(mark.get_xdata())) == ("v", [8000])
    assert list(bar.get_xdata()) == [6000, 11_000]


@pytest.mark.parametrize(
    ("target", "markers"),
    [
        (TargetMark(0.93, "open", 12_000, 9000, None), ["v", ">"]),
        (TargetMark(0.93, "far", 90_000, 60_000, 120_000), [">"]),
        (TargetMark(0.93, "far, no interval", 90_000), [">"]),
        (TargetMark(0.93, "never for most", None, 9000, None), [">"]),
        (TargetMark(0.93, "no interval", 12_000), ["v"]),
        (TargetMark(0.93, "never"), []),
    ],
)
def test_what_is_open_ends_in_an_arrow(target, markers):
    (axes,) = drawn(sweep(target=target)).axes
    assert [line.get_marker() for line in lines(axes, VERMILION) if line.get_marker() != "None"] == markers
    right = axes.get_xlim()[1]
    assert all(max(line.get_xdata()) <= right for line in lines(axes, VERMILION))


@pytest.mark.parametrize(("fit", "accuracy"), [(fitted(), rising(1100)), (None, 0.5)])
def test_the_elbow_stands_on_the_fit_or_between_the_means(fit, accuracy):
    two = MeasuredSizes((110, 11_000), [[0.4], [0.6]], [None, None], [None, None], "")  # 1,100 is half way
    plot = sweep() if fit else sweep(measured=two, fit=None)
    (axes,) = drawn(plot).axes
    (mark,) = [line for line in axes.lines if line.get_marker() == "D"]
    assert mark.get_xydata()[0] == pytest.approx([1100, 100 * accuracy], abs=0.02)


@pytest.mark.parametrize("name", ODD)
def test_odd_sweeps_are_drawn_and_no_words_cover_data_or_words(name):
    figure = drawn(ODD[name])
    (axes,) = figure.axes
    words = boxes(figure, [text for text in axes.texts if isinstance(text, Annotation)])
    measured = ODD[name].measured
    places = [(s, 100 * v) for s, runs in zip(measured.per_class, measured.accuracies, strict=True) for v in runs]
    if ODD[name].fit:
        places += [(s, 100 * v) for s, v in zip(ODD[name].fit.per_class, ODD[name].fit.accuracies, strict=True)]
    for box in words:
        assert not box.count_contains(axes.transData.transform(places)), box
        assert box.x0 >= axes.bbox.x0
        assert box.x1 <= axes.bbox.x1
    outside = [figure._suptitle, figure._supxlabel, axes.xaxis.label, *axes.get_xticklabels(), axes.get_legend()]
    everything = words + [part.get_window_extent() for part in outside]
    for one, other in combinations(everything, 2):
        assert not one.overlaps(other), (one, other)
    for box in everything:
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= figure.bbox.x1
        assert box.y1 <= figure.bbox.y1
    low, high = axes.get_ylim()
    assert all(low < accuracy < high for _, accuracy in places)


TEXTS = [r"$\frac{$ _^{", "<b> & ]]>", "two\nlines\x00\x1b[31m", "x" * 200, "word " * 40, "学習曲線 한국어 \u202e", ""]


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_what_users_write_breaks_no_picture(tmp_path, text):
    plot = sweep(
        title=text,
        caption=3 * text,
        target=TargetMark(0.92, text, 8000, 6000, None),
        elbow=SizeMark(1100, text),
        fit=replace(fitted(), others={text: fitted().accuracies}),
        measured=replace(measured_sizes(), interval_name=text),
    )
    two = ComparedCurvesPlot(
        text,
        text,
        [NamedCurve(text, measured_sizes()), NamedCurve(text, measured_sizes())],
        crossing=SizeMark(50, text),
    )
    for write, shown in ((learning_curve, plot), (compared_curves, two)):
        write(tmp_path / "curve.svg", shown)
        ElementTree.parse(tmp_path / "curve.svg")
    compared_curves(tmp_path / "curve.png", two)
    with Image.open(tmp_path / "curve.png") as image:
        assert image.size == (1170, 806)


def test_long_names_leave_the_panel_its_room():
    text = "x" * 200
    plot = sweep(
        title=text,
        fit=replace(fitted(), others={text: fitted().accuracies, f"{text}2": fitted().accuracies}),
        measured=replace(measured_sizes(), interval_name=text),
    )
    (axes,) = drawn(plot).axes
    assert axes.get_window_extent().width > 600
    assert axes.get_legend().get_window_extent().x1 <= 900


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: MeasuredSizes((), [], [], [], ""), "sizes rise from above 0"),
        (lambda: MeasuredSizes((20, 10), [[0.1], [0.2]], [None, None], [None, None], ""), "sizes rise from above 0"),
        (lambda: MeasuredSizes((0, 10), [[0.1], [0.2]], [None, None], [None, None], ""), "sizes rise from above 0"),
        (lambda: MeasuredSizes((10,), [[]], [None], [None], ""), "every size needs a run"),
        (lambda: MeasuredSizes((10,), [[0.1]], [], [None], ""), "columns of"),
        (lambda: FittedCurve((10, 20), (0.1, 0.2), (0.1, 0.2), (0.1, 0.2), {"other": (0.1,)}), "columns of"),
    ],
)
def test_figures_that_do_not_fit_together_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


# ------------------------------------------------------------------------------------------------ several curves


def compared(count=2, **changes):
    curves = []
    for i in range(count):

        def truth(per_class, half=100.0 + 60 * i, slope=0.7 + 0.1 * i):
            return rising(per_class, half=half, slope=slope)

        curves.append(NamedCurve(f"model {i}", measured_sizes(truth, seed=i), fitted(truth, others=False)))
    differences = []
    for other in curves[1:]:
        means = curves[0].measured.means - other.measured.means
        half = np.where(np.asarray(SIZES) < 5000, 0.02, np.nan)
        differences.append(PairedDifferences(SIZES, means, list(means - half), list(means + half)))
    fields = {
        "title": "several models on cifar10",
        "caption": "9 sizes, 10,000 test images",
        "curves": curves,
        "differences": differences,
        "differences_title": "model 0 - model 1, paired: mean and 95 % t interval",
        "crossing": SizeMark(1500, "they cross at 1,500 [1,000, 2,600]", 1000, 2600),
    }
    return ComparedCurvesPlot(**(fields | changes))


def test_compared_curves_are_one_file(tmp_path):
    compared_curves(tmp_path / "new" / "compared.png", compared())
    with Image.open(tmp_path / "new" / "compared.png") as image:
        assert image.size == (1170, 988)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["compared.png"]


def test_each_curve_has_its_colour_and_its_name():
    figure = drawn(compared(3))
    top, _ = figure.axes
    for color, curve, container in zip(COLORS, compared(3).curves, top.containers, strict=False):
        assert same_color(container[0].get_color(), color)
        assert np.allclose(container[0].get_ydata(), 100 * curve.measured.means)
        assert lines(top, color, style="--")
    words = legend_words(figure)
    assert words == [
        "model 0",
        "model 1",
        "model 2",
        "two sd",
        "95 % interval of the fit",
        "beyond what was measured",
    ]


def test_the_lower_panel_holds_the_differences_in_points_around_zero():
    plot = compared()
    top, bottom = drawn(plot).axes
    (container,) = bottom.containers
    assert np.allclose(container[0].get_xydata(), np.stack([SIZES, 100 * plot.differences[0].means], 1))
    segments = container[2][0].get_segments()
    assert [np.ptp(segment[:, 1]) for segment in segments] == pytest.approx([4.0] * 8 + [0.0])
    assert any(set(line.get_ydata()) == {0} for line in bottom.lines)
    assert bottom.get_ylim()[0] < 0 < bottom.get_ylim()[1]
    assert top.get_xlim() == bottom.get_xlim()


def test_differences_of_several_pairs_stand_side_by_side_in_the_colours_of_their_curves():
    _, bottom = drawn(compared(MAX_CURVES)).axes
    firsts = [container[0].get_xdata()[0] for container in bottom.containers]
    assert len(set(firsts)) == MAX_CURVES - 1
    assert bottom.get_xlim()[0] < min(firsts) < 10 < max(firsts) < 12
    for color, container in zip(COLORS[1:], bottom.containers, strict=False):
        assert same_color(container[0].get_color(), color)


def test_the_crossing_is_a_line_and_its_interval_a_stripe_in_both_panels():
    for axes in drawn(compared()).axes:
        assert any(list(line.get_xdata()) == [1500, 1500] for line in axes.lines)
        (stripe,) = axes.patches
        assert (stripe.get_x(), stripe.get_x() + stripe.get_width()) == (1000, 2600)
    top, _ = drawn(compared(crossing=SizeMark(1500, "open", 1000, None))).axes
    (stripe,) = top.patches
    assert stripe.get_x() + stripe.get_width() == pytest.approx(top.get_xlim()[1])


def test_without_differences_there_is_one_panel():
    figure = drawn(compared(differences=[], crossing=None))
    (axes,) = figure.axes
    assert axes.get_xlabel() == "images per class"
    assert tick_words(axes)[0] == "10"


def test_curves_of_different_sizes_and_without_fits_share_the_axis():
    small = NamedCurve("small", measured_sizes(sizes=(5, 30, 80), num_runs=1))
    large = NamedCurve("large", measured_sizes(sizes=(80, 300, 3000), num_runs=1))
    figure = drawn(compared(curves=[small, large], differences=[], crossing=None))
    assert tick_words(figure.axes[0]) == ["5", "30", "80", "300", "3,000"]
    assert legend_words(figure) == ["small", "large"]


@pytest.mark.parametrize("count", [2, MAX_CURVES])
def test_no_words_cover_words_in_a_comparison(count):
    figure = drawn(compared(count))
    top, bottom = figure.axes
    parts = [figure._suptitle, figure._supxlabel, bottom.xaxis.label, bottom.get_legend(), bottom._left_title]
    everything = [part.get_window_extent() for part in (*parts, *top.texts, *bottom.get_xticklabels())]
    for one, other in combinations(everything, 2):
        assert not one.overlaps(other), (one, other)
    assert all(box.x0 >= 0 and box.x1 <= figure.bbox.x1 and box.y0 >= 0 for box in everything)


def test_too_few_and_too_many_curves_and_differences_are_refused():
    for count in (0, 1, MAX_CURVES + 1):
        with pytest.raises(ValueError, match=f"not {count}"):
            ComparedCurvesPlot("", "", [NamedCurve("a", SMALL)] * count)
    with pytest.raises(ValueError, match="2 differences of 2 curves"):
        compared(differences=compared(3).differences)
