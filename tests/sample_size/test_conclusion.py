"""From rows to answers: what is asked is answered, what cannot be answered is said, and JSON stays JSON."""

import json
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from cvtrain.sample_size.conclusion import conclude, drawn_curve, json_text, measured_sizes
from cvtrain.sample_size.sentences import answer_sentences
from cvtrain.sample_size.table import Row

SIZES = (10, 20, 50, 100, 200, 500)


def text_of(conclusion):
    return json_text(conclusion, sentences=answer_sentences(conclusion))


def truth(per_class):
    """Logistic in log n, from chance at nothing to one."""
    return 0.1 + 0.9 / (1 + (100 / per_class) ** 0.8)


def rows_of(sizes=SIZES, *, num_replicates=3):
    random = np.random.default_rng(0)
    rows = []
    for per_class in sizes:
        for replicate in range(num_replicates):
            accuracy = float(truth(per_class) + 0.01 * random.normal())
            num_train = 8 * per_class
            rows.append(
                Row(per_class, replicate, num_train, 2 * per_class, 9, 9, "finished", 1, 1, accuracy, 1, 1, "ab")
            )
    return rows


def concluded(rows, **more):
    asked = {"chance_accuracy": 0.1, "num_test": 10_000, "target": None, "elbow": 0.02, "validate": False}
    return conclude(rows, **(asked | more))


@cache
def whole():
    return concluded(rows_of(), target=0.9, validate=True)


def strict(text):
    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


def test_answers_are_near_the_truth():
    conclusion = whole()
    assert conclusion.fit.refusal is None
    assert [each.per_class for each in conclusion.ahead] == [1000, 2000]
    for each in conclusion.ahead:
        assert each.low <= truth(each.per_class) <= each.high
    # 0.9 is reached where (100 / n)^0.8 = 1 / 8: at 1,345 images per class
    assert conclusion.target.low <= 100 * 8**1.25 <= conclusion.target.high
    assert len(conclusion.gains) == len(SIZES) - 1
    assert conclusion.validation.predictions


def test_order_of_rows_changes_nothing():
    assert text_of(concluded(rows_of()[::-1])) == text_of(concluded(rows_of()))


def test_only_what_is_asked_is_answered():
    conclusion = concluded(rows_of())
    assert (conclusion.target, conclusion.validation) == (None, None)
    assert conclusion.elbow.gain == 0.02
    plain = strict(text_of(conclusion))
    assert (plain["target"], plain["validation"]) == (None, None)


@pytest.mark.parametrize(("num_sizes", "words"), [(0, "0 sizes are measured"), (1, "1 size is measured")])
def test_a_curve_needs_two_sizes(num_sizes, words):
    conclusion = concluded(rows_of(SIZES[:num_sizes]), target=0.5, validate=True)
    assert (conclusion.fit, conclusion.target, conclusion.elbow) == (None, None, None)
    assert conclusion.reason == f"{words}, and a curve needs two"
    assert answer_sentences(conclusion) == [f"no curve: {words}, and a curve needs two"]
    plain = strict(text_of(conclusion))
    assert plain["refusal"] == conclusion.reason
    assert plain["sentences"] == answer_sentences(conclusion)
    assert len(plain["points"]) == num_sizes
    assert "curve" not in plain


def test_two_sizes_with_one_run_each_are_answered_in_words():
    conclusion = concluded(rows_of((10, 20), num_replicates=1), target=0.9)
    strict(text_of(conclusion))
    said = answer_sentences(conclusion)
    assert any(line.startswith("90.0 %:") for line in said)
    assert any(line.startswith("no look ahead:") for line in said)


def test_curve_is_drawn_four_times_as_far_as_measured_unless_it_refuses():
    curve = drawn_curve(whole().fit)
    assert (curve.per_class[0], curve.per_class[-1]) == (pytest.approx(10), pytest.approx(2000))
    bands = zip(curve.low, curve.accuracies, curve.high, strict=True)
    assert all(low <= accuracy <= high for low, accuracy, high in bands)
    assert set(curve.others) == {"log-linear fit", "power-law fit"}
    short = concluded(rows_of((10, 20)))
    assert short.fit.refusal
    assert drawn_curve(short.fit).per_class[-1] == pytest.approx(20)


def test_json_holds_the_points_and_every_answer():
    plain = strict(text_of(whole()))
    assert [point["per_class"] for point in plain["points"]] == list(SIZES)
    assert plain["points"][0]["num_values"] == 3
    assert plain["target"]["per_class"] == whole().target.per_class
    assert plain["elbow"]["status"] == whole().elbow.status
    assert [each["factor"] for each in plain["ahead"]] == [2.0, 4.0]
    assert sum(form["weight"] for form in plain["forms"]) == pytest.approx(1)
    assert len(plain["curve"]["per_class"]) == len(plain["curve"]["accuracy"])


def test_measured_sizes_have_an_interval_only_where_there_are_runs_enough():
    single = concluded([*rows_of((10, 20)), *rows_of((50,), num_replicates=1)])
    sizes = measured_sizes(single.points)
    assert list(sizes.per_class) == [10, 20, 50]
    assert [low is None for low in sizes.low] == [high is None for high in sizes.high] == [False, False, True]


def with_train_accuracy(rows, accuracy):
    return [replace(row, train_accuracy=accuracy) for row in rows]


@pytest.mark.parametrize(("train_accuracy", "is_doubtful"), [(0.8, True), (0.99, False)])
def test_a_curve_above_what_the_model_fits_is_doubted(train_accuracy, is_doubtful):
    conclusion = concluded(with_train_accuracy(rows_of(), train_accuracy), trains_to_the_end=True)
    cautions = [sentence for sentence in answer_sentences(conclusion) if sentence.startswith("caution: ")]
    assert conclusion.is_above_train_accuracy == is_doubtful
    assert len(cautions) == is_doubtful
    if is_doubtful:
        assert "at the largest size 80.0 % of the training images are right" in cautions[0]
    assert strict(text_of(conclusion))["train_accuracy"] == pytest.approx(train_accuracy)


def test_training_accuracy_says_nothing_where_training_was_cut_short():
    conclusion = concluded(with_train_accuracy(rows_of(), 0.5))
    assert conclusion.train_accuracy is None
    assert not conclusion.is_above_train_accuracy
