"""Charts: values stand where their axes say, ticks are those that people choose, everything else is text."""

import json
import math
import random
import re
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from cvtrain.report.charts import Axis, Band, Mark, Series, bar_chart, line_chart, matrix_chart, point_chart
from cvtrain.report.charts.matrix import level_of
from cvtrain.report.charts.scale import label_of, ticks_of
from cvtrain.report.charts.thinning import MAX_POINTS
from tests.page_for_tests import HOSTILE

EPOCH, LOSS, SHARE = Axis("epoch", "count"), Axis("loss"), Axis("accuracy", "percent")


def parsed(chart):
    """The chart as a tree; attributes without a value, which HTML has and XML has not, get one."""
    return ElementTree.fromstring(str(chart))


def of_class(tree, *names):
    return [e for e in tree.iter() if set(names) <= set(e.get("class", "").split())]


def drawing_of(tree):
    return next(e for e in tree.iter("svg") if e.get("role") == "img")


def places_in(path):
    """Absolute places of a path of straight lines."""
    return [tuple(map(float, place.split())) for place in re.findall(r"[ML]([^MLZ]+)", path.get("d"))]


def value_at(tree, place):
    """The values that a place of the drawing stands for: the inverse of the axes, computed on its own."""
    values = []
    for name, at in zip("xy", place, strict=True):
        axis = json.loads(drawing_of(tree).get(f"data-{name}"))
        share = (at - axis["start"]) / (axis["end"] - axis["start"])
        low, high = axis["low"], axis["high"]
        values.append(low * (high / low) ** share if axis["log"] else low + share * (high - low))
    return tuple(values)


# ------------------------------------------------------------------------------------------------------- lines


@pytest.mark.parametrize("log", [False, True])
def test_points_of_a_line_stand_at_their_values(log):
    xs, ys = [1, 5, 20, 100], [0.01, 3.0, 0.5, 12.0]
    tree = parsed(line_chart([Series("a", xs, ys)], title="t", x=Axis("x", log=log), y=Axis("y", log=log)))
    (line,) = of_class(tree, "line")
    for place, x, y in zip(places_in(line), xs, ys, strict=True):
        assert value_at(tree, place) == pytest.approx((x, y), rel=0.02, abs=0.03 if not log else 0)


def test_everything_stands_within_the_drawing():
    wild = [Series("a", [1, 2, 3], [-1e99, 1e-300, 1e99]), Series("b", [2], [5.0], low=[-3.0], high=[1e50])]
    for log in (False, True):
        tree = parsed(point_chart(wild, title="t", x=EPOCH, y=Axis("y", log=log)))
        _, _, width, height = map(float, drawing_of(tree).get("viewBox").split())
        for marker in of_class(tree, "marker"):
            if marker.get("cx"):
                assert 0 <= float(marker.get("cx")) <= width
                assert 0 <= float(marker.get("cy")) <= height


@pytest.mark.parametrize("gap", [None, math.nan, math.inf, -math.inf])
def test_a_value_that_is_missing_leaves_a_gap(gap):
    tree = parsed(line_chart([Series("a", range(1, 7), [1, 2, gap, 4, 5, 6])], title="t", x=EPOCH, y=LOSS))
    assert [len(places_in(line)) for line in of_class(tree, "line")] == [2, 3]


def test_zero_has_no_place_on_a_logarithmic_axis():
    tree = parsed(line_chart([Series("a", [1, 2, 3], [1, 0, 10])], title="t", x=EPOCH, y=Axis("y", log=True)))
    assert of_class(tree, "line") == []
    assert len(of_class(tree, "marker")) == 2  # each stands alone
    with pytest.raises(ValueError, match="no place for 0"):
        Axis("y", log=True, low=0)


def test_one_point_is_a_dot_and_none_a_sentence():
    tree = parsed(line_chart([Series("a", [1], [0.5])], title="t", x=EPOCH, y=SHARE))
    assert len(of_class(tree, "marker")) == 1
    for none in ([], [Series("a", [], [])], [Series("a", [1], [None])]):
        tree = parsed(line_chart(none, title="Loss", x=EPOCH, y=LOSS))
        assert "".join(tree.itertext()) == "LossThere are no values to draw."


def test_a_band_lies_between_the_ends_of_the_intervals():
    low, high = [1.0, 2.0, 3.0, None], [2.0, 4.0, 6.0, None]
    tree = parsed(line_chart([Series("a", [1, 2, 3, 4], [1.5, 3, 4, 5], low, high)], title="t", x=EPOCH, y=LOSS))
    (area,) = of_class(tree, "area")
    values = [value_at(tree, place)[1] for place in places_in(area)]
    assert values == pytest.approx([2, 4, 6, 3, 2, 1], abs=0.03)


def test_peaks_and_gaps_of_long_series_stay():
    values = [math.sin(i / 500) for i in range(30_000)]
    values[12_345], values[20_000], values[15_050] = 9.0, -9.0, None
    tree = parsed(line_chart([Series("a", range(30_000), values)], title="t", x=Axis("step", "count"), y=LOSS))
    told = json.loads(of_class(tree, "series")[0].get("data-values"))
    assert len(told) <= MAX_POINTS
    assert [12_345, 9] in told
    assert [20_000, -9] in told
    assert told[0][0] == 0
    assert told[-1][0] == 29_999
    assert len(of_class(tree, "line")) == 2
    assert all(value == pytest.approx(values[step]) for step, value in told)


def test_chart_of_a_hundred_long_series_is_small():
    noise = random.Random(0)
    series = [Series(f"job {i}", range(1500), [noise.random() for _ in range(1500)]) for i in range(100)]
    assert len(line_chart(series, title="t", x=EPOCH, y=SHARE, wide=True)) < 700_000


def test_series_beyond_the_colours_have_other_dashes():
    tree = parsed(line_chart([Series(f"{i}", [1, 2], [i, i]) for i in range(20)], title="t", x=EPOCH, y=LOSS))
    looks = [
        (group.get("class"), line.get("stroke-dasharray"))
        for group in of_class(tree, "series")
        for line in of_class(group, "line")
    ]
    assert len(set(looks)) == 20


def test_legend_names_each_series_and_is_left_out_for_one():
    two = [Series("a", [1, 2], [1, 2]), Series("b", [1, 2], [2, 1], shown=False)]
    tree = parsed(line_chart(two, title="t", x=EPOCH, y=LOSS))
    assert [(key.tag, "".join(key.itertext()), key.get("aria-pressed")) for key in of_class(tree, "key")] == [
        ("button", "a", "true"),
        ("button", "b", "false"),
    ]
    assert len(of_class(tree, "series", "off")) == 1
    assert of_class(parsed(line_chart(two[:1], title="t", x=EPOCH, y=LOSS)), "legend") == []


def test_marks_and_bands_stand_at_their_values_and_vanish_beyond_the_axes():
    marks = [Mark(3, "best"), Mark(1.5, "level", "y"), Mark(99, "too far"), Mark(-50, "too low", "y")]
    bands = [Band(2, 4, "here"), Band(50, 60, "not here"), Band(4.5, 1000, "to the end")]
    chart = line_chart([Series("a", [1, 5], [1, 2])], title="t", x=EPOCH, y=LOSS, marks=marks, bands=bands)
    tree = parsed(chart)
    best, level = of_class(tree, "mark")
    assert value_at(tree, (float(best.get("x1")), 0))[0] == pytest.approx(3, abs=0.01)
    assert value_at(tree, (0, float(level.get("y1"))))[1] == pytest.approx(1.5, abs=0.01)
    here, rest = of_class(tree, "band")
    left, width = float(here.get("x")), float(here.get("width"))
    assert [value_at(tree, (x, 0))[0] for x in (left, left + width)] == pytest.approx([2, 4], abs=0.01)
    assert float(rest.get("x")) + float(rest.get("width")) <= float(drawing_of(tree).get("viewBox").split()[2])
    assert [e.text for e in of_class(tree, "words")] == ["here", "to the end", "best", "level"]


def test_few_values_are_a_table_too_and_many_are_not():
    tree = parsed(line_chart([Series("a", [1, 2], [0.5, None]), Series("b", [2], [0.25])], title="t", x=EPOCH, y=SHARE))
    rows = [[cell.text for cell in row] for row in tree.iter("tr")]
    assert rows == [["epoch", "a", "b"], ["1", "50.0 %", "\u2013"], ["2", "\u2013", "25.0 %"]]
    many = parsed(line_chart([Series("a", range(500), range(500))], title="t", x=EPOCH, y=LOSS))
    assert list(many.iter("table")) == []


def test_series_of_unequal_columns_are_refused():
    with pytest.raises(ValueError, match="series 'a': 2 x"):
        Series("a", [1, 2], [1])
    with pytest.raises(ValueError, match="series 'a'"):
        Series("a", [1, 2], [1, 2], low=[1, 2])


# ------------------------------------------------------------------------------------------------ points and bars


def test_whiskers_reach_the_ends_of_the_intervals():
    tree = parsed(point_chart([Series("a", [1, 2], [0.5, 0.7], [0.4, None], [0.6, 0.8])], title="t", x=EPOCH, y=SHARE))
    stems = of_class(tree, "whisker")
    assert len(stems) == 1
    assert [value_at(tree, p)[1] for p in places_in(stems[0])[:2]] == pytest.approx([0.4, 0.6], abs=0.002)


@pytest.mark.parametrize("lies", [False, True])
def test_seeds_of_an_arm_stand_beside_each_other_within_its_room(lies):
    arms = Axis("arm", names=["sgd", "adam"])
    places, values = [0, 0, 0, 1], [0.5, 0.6, 0.7, 0.8]
    columns = (values, places) if lies else (places, values)
    x, y = (SHARE, arms) if lies else (arms, SHARE)
    tree = parsed(point_chart([Series("seeds", *columns)], title="t", x=x, y=y))
    told = [row[1 if lies else 0] for row in json.loads(of_class(tree, "series")[0].get("data-values"))]
    assert len(set(told)) == 4
    assert [round(at) for at in told] == places
    centres = [(float(m.get("cx")), float(m.get("cy"))) for m in of_class(tree, "series")[0]]
    assert [value_at(tree, c)[0 if lies else 1] for c in centres] == pytest.approx(values, abs=0.002)


def test_categories_of_the_y_axis_go_down():
    arms = Axis("arm", names=["first", "second", "third"])
    tree = parsed(point_chart([Series("a", [0.1, 0.2, 0.3], [0, 1, 2])], title="t", x=SHARE, y=arms))
    assert [float(m.get("cy")) for m in of_class(tree, "series")[0]] == sorted(
        float(m.get("cy")) for m in of_class(tree, "series")[0]
    )
    assert [e.text for e in of_class(tree, "tick")][:3] == ["first", "second", "third"]


def edges(tree, bar, *, lies=False):
    x, y, width, height = (float(bar.get(name)) for name in ("x", "y", "width", "height"))
    corners = value_at(tree, (x, y + height)), value_at(tree, (x + width, y))
    return [corner[0 if lies else 1] for corner in corners]


@pytest.mark.parametrize("lies", [False, True])
def test_bars_begin_at_zero_and_end_at_their_values(lies):
    names = Axis("class", names=["cat", "dog", "bird"])
    columns = ([30, 0, 10], [0, 1, 2]) if lies else ([0, 1, 2], [30, 0, 10])
    x, y = (Axis("n", "count"), names) if lies else (names, Axis("n", "count"))
    tree = parsed(bar_chart([Series("train", *columns)], title="t", x=x, y=y))
    found = [edges(tree, bar, lies=lies) for bar in of_class(tree, "series")[0]]
    assert [end for _, end in found] == pytest.approx([30, 0, 10], abs=0.15)
    assert [start for start, _ in found] == pytest.approx([0, 0, 0], abs=0.15)


def test_stacked_bars_stand_on_each_other():
    names = Axis("batch", names=["32", "64"])
    parts = [
        Series("data", [0, 1], [0.2, 0.1]),
        Series("forward", [0, 1], [0.3, None]),
        Series("rest", [0, 1], [0.5, 0.4]),
    ]
    tree = parsed(bar_chart(parts, title="t", x=names, y=SHARE, stacked=True))
    found = [[edges(tree, bar) for bar in group] for group in of_class(tree, "series")]
    assert found[0] == [pytest.approx([0, 0.2], abs=0.005), pytest.approx([0, 0.1], abs=0.005)]
    assert found[1] == [pytest.approx([0.2, 0.5], abs=0.005)]
    assert found[2] == [pytest.approx([0.5, 1.0], abs=0.005), pytest.approx([0.1, 0.5], abs=0.005)]


def test_bars_of_several_series_stand_beside_each_other():
    names = Axis("class", names=["cat", "dog"])
    series = [Series(name, [0, 1], [3, 4]) for name in ("train", "val", "test")]
    tree = parsed(bar_chart(series, title="t", x=names, y=Axis("n", "count")))
    bars = sorted((float(b.get("x")), float(b.get("width"))) for b in of_class(tree, "bar") if b.get("height") != "12")
    assert len(bars) == 6
    assert all(a + width <= b + 0.11 for (a, width), (b, _) in pairwise(bars))
    assert [round(value_at(tree, (x + width / 2, 0))[0]) for x, width in bars] == [0, 0, 0, 1, 1, 1]


def test_bins_do_not_overlap_and_a_guide_lies_over_them():
    middles = [i / 10 + 0.05 for i in range(10)]
    share = Axis("confidence", "percent", low=0, high=1)
    series = [Series("accuracy", middles, middles), Series("perfect", [0, 1], [0, 1], drawn="line")]
    tree = parsed(bar_chart(series, title="t", x=share, y=Axis("accuracy", "percent", low=0, high=1)))
    bars = [(float(b.get("x")), float(b.get("width"))) for b in of_class(tree, "series")[0]]
    assert all(a + width < b for (a, width), (b, _) in pairwise(bars))
    (guide,) = of_class(tree, "line")[-1:]
    assert [value_at(tree, p) for p in places_in(guide)] == [pytest.approx((0, 0)), pytest.approx((1, 1))]


# ------------------------------------------------------------------------------------------------------- ticks


@pytest.mark.parametrize(
    ("axis", "low", "high", "labels"),
    [
        (Axis("", "percent"), 0, 1, ["0 %", "20 %", "40 %", "60 %", "80 %", "100 %"]),
        (Axis("", "percent"), 0.981, 0.993, ["98.2 %", "98.4 %", "98.6 %", "98.8 %", "99.0 %", "99.2 %"]),
        (Axis("", "count"), 0.5, 3.5, ["1", "2", "3"]),
        (Axis("", "count"), 0, 51_000, ["0", "10,000", "20,000", "30,000", "40,000", "50,000"]),
        (Axis("", log=True), 9e-7, 0.11, ["1e-6", "1e-5", "0.0001", "0.001", "0.01", "0.1"]),
        (Axis("", "count", log=True), 4, 110, ["5", "10", "20", "50", "100"]),
        (Axis("", log=True), 3.2, 3.9, ["3.2", "3.4", "3.6", "3.8"]),
        (Axis("", "seconds"), 0, 7000, ["0 min", "20 min", "40 min", "60 min", "80 min", "100 min"]),
        (Axis("", "seconds", log=True), 8, 9000, ["10 s", "30 s", "2 min", "10 min", "30 min", "2 h"]),
        (Axis(""), 2.302581, 2.302586, ["2.302581", "2.302582", "2.302583", "2.302584", "2.302585", "2.302586"]),
        (Axis("", names=["a", "b"]), -0.5, 1.5, ["a", "b"]),
    ],
)
def test_ticks_are_those_that_people_choose(axis, low, high, labels):
    ticks = ticks_of(axis, low, high, most=6)
    assert [label_of(axis, tick, ticks) for tick in ticks] == labels


def test_ticks_of_any_axis_lie_within_it_and_differ():
    noise = random.Random(0)
    for kind in ("number", "count", "percent", "seconds"):
        for log in (False, True):
            for _ in range(150):
                low = 10 ** noise.uniform(-8, 8)
                high = low + 10 ** noise.uniform(-2, 9) * low + (kind == "count")
                ticks = ticks_of(Axis("", kind, log=log), low, high, most=noise.randint(2, 9))
                assert ticks == sorted(set(ticks))
                assert all(low - 1e-9 * high <= tick <= high * (1 + 1e-9) for tick in ticks), (kind, log, low, high)
                assert len(ticks) <= 10


# ------------------------------------------------------------------------------------------------------ matrix


def test_cells_of_the_matrix_hold_counts_and_colours_of_their_share():
    counts = [[90, 10, 0], [0, 50, 50], [0, 0, 0]]
    tree = parsed(matrix_chart(counts, ["a", "b", "c"], title="t"))
    assert [e.text for e in of_class(tree, "count")] == ["90", "10", "50", "50"]
    cells = {e.get("class"): e.get("d").count("M") for e in of_class(tree, "cell")}
    # The square root of 0.9 is 0.95, of 0.1 0.32, of 0.5 0.71: levels 10, 4 and 8.
    assert cells == {"cell right level10": 1, "cell wrong level4": 1, "cell right level8": 1, "cell wrong level8": 1}
    assert drawing_of(tree).get("aria-label").endswith("140 of 200 (70.0 %) on the diagonal")


def test_levels_go_from_one_to_ten():
    assert level_of(0, 5) == 0
    assert level_of(1, 10**9) == 1
    assert [level_of(n, 100) for n in (1, 4, 100)] == [1, 2, 10]


def test_matrix_of_a_hundred_classes_is_small_even_when_full():
    noise = random.Random(0)
    counts = [[noise.randint(1, 99) for _ in range(100)] for _ in range(100)]
    chart = matrix_chart(counts, [f"a class with a long name {i}" for i in range(100)], title="t")
    assert len(chart) < 300_000
    assert sum(e.get("d").count("M") for e in of_class(parsed(chart), "cell")) == 10_000


def test_matrix_of_nothing_is_a_sentence_and_of_another_shape_an_error():
    assert "There is nothing to count." in matrix_chart([[0, 0], [0, 0]], ["a", "b"], title="t")
    with pytest.raises(ValueError, match="3 names for a matrix"):
        matrix_chart([[1, 2], [3, 4]], ["a", "b", "c"], title="t")


# ------------------------------------------------------------------------------------------------------- names


def texts_told_to_the_script(tree):
    """All texts within the attributes that the script reads; JSON would turn escapes into the characters again."""

    def within(value):
        if isinstance(value, list | dict):
            for part in value.values() if isinstance(value, dict) else value:
                yield from within(part)
        elif isinstance(value, str):
            yield value

    told = ("data-x", "data-y", "data-values", "data-names")
    texts = [t for e in tree.iter() for name in told if name in e.attrib for t in within(json.loads(e.get(name)))]
    assert any("\\u202e" in text for text in texts)
    return texts


def test_names_of_any_kind_are_text_in_every_chart():
    names = list(HOSTILE)
    numbers = list(range(len(names)))
    axis = Axis(names[0], names=names)
    series = [Series(name, numbers, numbers, words=names) for name in names]
    lying = [Series(name, numbers, numbers, words=names) for name in names]
    plain = {"x": Axis(names[1]), "y": Axis(names[2]), "marks": [Mark(1, names[3])], "bands": [Band(1, 2, names[0])]}
    charts = [
        line_chart(series, title=names[0], **plain),
        point_chart(lying, title=names[1], x=Axis(names[2]), y=axis),
        bar_chart(series, title=names[2], x=axis, y=Axis(names[1])),
        matrix_chart([[1] * len(names)] * len(names), names, title=names[0], rows=names[1], columns=names[2]),
    ]
    for chart in charts:
        tree = parsed(chart)
        assert {e.tag for e in tree.iter()} <= {
            *("div", "h3", "button", "svg", "g", "line", "path", "rect", "circle", "text"),
            *("details", "summary", "table", "thead", "tbody", "tr", "th", "td"),
        }
        assert not [name for e in tree.iter() for name in e.attrib if name.startswith("on") or name == "style"]
        assert "\u202e" not in chart
        assert all(text.isprintable() for text in texts_told_to_the_script(tree))
    assert HOSTILE[0] in "".join(parsed(charts[0]).itertext())
