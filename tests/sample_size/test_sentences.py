"""What a sweep says: figures in per cent, gains in points, and every answer as a sentence of its own."""

import pytest

from cvtrain.analysis.learning_curve.answers import AheadResult, ElbowResult, TargetResult
from cvtrain.analysis.learning_curve.validation import LogLinearResult, PredictionResult, ValidationResult
from cvtrain.sample_size import sentences as say
from cvtrain.sample_size.plan import Cell, Plan
from cvtrain.sample_size.protocol import Course
from cvtrain.sample_size.table import Row

COURSE = Course(
    batch_size=10, steps_per_epoch=8, total_steps=2000, evaluate_every=50, metric="val_loss", patience=3, min_steps=2000
)
CELL = Cell(1000, 0, 8000, 2000, COURSE)
LIMIT = AheadResult(4.0, 4000, 0.81, 0.786, 0.824, None)


def row(replicate=0, **changes):
    figures = {"steps": 1500, "best_step": 1200, "stop_reason": "finished", "train_accuracy": 0.9}
    figures |= {"val_accuracy": 0.5, "test_accuracy": 0.4, "test_loss": 1.5, "seconds": 3.0, "split_hash": "ab"}
    return Row(1000, replicate, 8000, 2000, **(figures | changes))


def test_standard_error_is_that_of_the_binomial_distribution():
    assert say.standard_error(0.5, 100) == 0.05
    assert say.standard_error(0.8, 400) == pytest.approx(0.02)
    assert say.standard_error(1.0, 20) == 0.0


@pytest.mark.parametrize(("value", "words"), [(0.8125, "81.2"), (0, "0.0"), (-1e-5, "0.0"), (1, "100.0")])
def test_per_cent_has_one_decimal_and_no_negative_zero(value, words):
    assert say.percent(value) == words


def test_points_have_a_sign():
    assert [say.points(value) for value in (0.021, -0.021, -1e-6)] == ["+2.1", "-2.1", "+0.0"]


def test_plan_says_what_one_validation_image_is_worth():
    (cells,) = say.plan_rows(Plan((1000,), (CELL,)))
    assert dict(zip(say.PLAN_HEADER, cells, strict=True)) == {
        "per class": "1,000",
        "runs": "1",
        "train": "8,000",
        "val": "2,000",
        "batch": "10",
        "steps": "2,000",
        "evaluated every": "50",
        "best by": "loss",
        "one image": "0.05",  # of 2,000: 1 / 2,000 in points
        "SE": "1.1",  # sqrt(0.25 / 2,000) = 1.118 points
    }


def test_result_is_mean_interval_and_standard_error():
    rows = [row(0, test_accuracy=0.4), row(1, test_accuracy=0.5, stop_reason="early_stopping", steps=1000)]
    (cells,) = say.result_rows(rows)
    # sd 7.07 points; t(0.975, 1) = 12.706, half width 63.5 points, cut to what an accuracy can be
    assert cells == (
        "1,000", "2", "8,000", "2,000", "1.1", "45.0 %", "[0.0, 100.0]", "7.1", "1,250", "1 of 2",
    )  # fmt: skip
    assert say.result_rows([row()])[0][5:8] == ("40.0 %", "-", "-")


def test_each_training_is_told_with_the_number_of_its_validation_images():
    line = say.done_line(row(7, stop_reason="early_stopping"), time="3.00 s", progress="[ 8/70]")
    assert line.split("  ") == [
        "[ 8/70]", "1,000 per class, run", "7", "test", "40.0 %", "val", "50.0 % of 2,000", "3.00 s, early",
    ]  # fmt: skip
    assert "early" not in say.done_line(row(), time="1 s", progress="")
    assert say.failed_line(CELL, "out of memory") == "1,000 per class, run 0 failed: out of memory"


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (
            TargetResult(0.8, "measured", 920, 800, 1100, 1300, 0.0, LIMIT, None),
            "80.0 %: 920 images per class [800, 1,100]; 1,300 to be 95 % sure",
        ),
        (
            TargetResult(0.8, "extrapolated", 3000, 2000, None, None, 0.2, LIMIT, None),
            "80.0 %: 3,000 images per class [2,000, no upper end] (an extrapolation);"
            " never 95 % sure: 4,000 images per class give 81.0 % [78.6, 82.4]",
        ),
        (
            TargetResult(0.8, "far", 30000, 20000, 50000, 60000, 0.0, LIMIT, None),
            "80.0 %: 30,000 images per class [20,000, 50,000] (a far extrapolation: do not plan with it);"
            " 60,000 to be 95 % sure",
        ),
        (
            TargetResult(0.2, "reached_at_smallest", 10, None, None, 10, 0.0, LIMIT, None),
            "20.0 %: the smallest size, 10 images per class, is enough; fewer may be",
        ),
        (
            TargetResult(0.99, "not_reachable", None, None, None, None, 1.0, LIMIT, None),
            "99.0 %: not reachable with this model and these settings; 4,000 images per class give 81.0 % [78.6, 82.4]",
        ),
        (
            TargetResult(0.9, "refused", None, None, None, None, 1.0, AheadResult(4.0, 40, None, None, None, "x"), "x"),
            "90.0 %: not reached in the measured sizes, and no further answer: x",
        ),
    ],
)
def test_target_is_answered(result, words):
    assert say.target_sentence(result) == words


LINE = LogLinearResult(0.045, 0.031, 0.059, 1e-4)


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (
            ElbowResult(0.02, "found", 640, 500, None, LINE),
            "elbow at 640 images per class [500, no upper end]: beyond it twice as many gain less than 2 points"
            " (on average 4.5 points per doubling [3.1, 5.9])",
        ),
        (ElbowResult(0.02, "none", log_linear=LINE), "no elbow: about 4.5 points per doubling [3.1, 5.9] throughout"),
        (
            ElbowResult(0.015, "beyond", log_linear=LINE),
            "no elbow within the measured sizes: the last doubling still gains 1.5 points or more"
            " (on average 4.5 points per doubling [3.1, 5.9])",
        ),
        (
            ElbowResult(0.02, "before", log_linear=LINE),
            "the elbow lies before the smallest size: no doubling gains 2 points"
            " (on average 4.5 points per doubling [3.1, 5.9])",
        ),
        (ElbowResult(0.02, "refused", reason="two sizes"), "no answer where more images stop paying: two sizes"),
    ],
)
def test_elbow_is_answered(result, words):
    assert say.elbow_sentence(result) == words


def test_look_ahead_is_answered_or_refused():
    assert say.ahead_sentence(LIMIT) == "4x the largest size, 4,000 images per class: 81.0 % [78.6, 82.4]"
    refused = AheadResult(2.0, 20, None, None, None, "accuracy falls")
    assert say.ahead_sentence(refused) == "2x the largest size: no answer: accuracy falls"


def test_prediction_of_held_out_sizes_is_scored():
    hit = PredictionResult(100, 200, 0.7, 0.72, 0.68, 0.76, True, 0.02, -0.1, 0.05)
    outside = PredictionResult(50, 200, 0.7, 0.6, 0.55, 0.65, False, -0.1, -0.2, 0.08)
    result = ValidationResult((hit, outside), 1, 0.0721, 0.158, 0.0667, ())
    assert say.validation_rows(result) == [
        ("100", "200", "70.0 %", "72.0 [68.0, 76.0]", "+2.0", "-10.0", "+5.0"),
        ("50", "200", "70.0 %", "60.0 [55.0, 65.0] outside", "-10.0", "-20.0", "+8.0"),
    ]
    assert say.validation_sentence(result) == (
        "held out and predicted: off by 7.2 points (root mean square), the last value by 15.8, a log-linear line by"
        " 6.7; 1 of 2 within the 95 % interval"
    )
    nothing = ValidationResult((), 0, None, None, None, ("too few sizes",))
    assert say.validation_sentence(nothing) == "the prediction could not be checked: too few sizes"


def test_troubles_are_counted_by_size():
    lines = say.trouble_lines({10: ["not learning: a", "not learning: b"], 1000: ["not learning: c"], 20: []})
    assert lines == [
        "2 trainings with 10 images per class learnt nothing: not learning: a",
        "1 training with 1,000 images per class learnt nothing: not learning: c",
    ]


@pytest.mark.parametrize(("size", "words"), [(24_515, "24,500"), (999, "999"), (1_004, "1,000"), (7, "7")])
def test_sizes_read_from_a_curve_have_three_digits(size, words):
    assert say.rounded(size) == words
