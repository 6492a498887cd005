from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from cvtrain.analysis.comparison import holm
from cvtrain.sweeps.image_verdict import compare_images, has_single_runs
from cvtrain.sweeps.leaderboard import JobResult
from cvtrain.sweeps.predictions import Predictions
from cvtrain.sweeps.verdict import compare


def job(name, is_right, *, seconds=10.0, seed=0, device="cpu", lr=None, val=0.5):
    accuracy = None if is_right is None else float(is_right.mean())
    return JobResult(
        overrides={"model": name} | ({} if lr is None else {"optimizer.lr": str(lr)}),
        run_dir=Path(f"{name}-{seed}-{lr}"),
        status="failed" if is_right is None else "done",
        seed=seed,
        split_hash="s",
        val_accuracy=None if is_right is None else val,
        test_accuracy=accuracy,
        seconds=seconds,
        images_per_second=1000.0,
        num_parameters=12345,
        device=device,
    )


def answers(is_right):
    return Predictions(tuple(map(str, range(len(is_right)))), ("x",) * len(is_right), is_right)


def compared(rights, *, jobs=None, **settings):
    """Compares models by which images they answer right."""
    jobs = jobs or [job(name, is_right) for name, is_right in rights.items()]
    predictions = {each.run_dir: answers(rights[each.overrides["model"]]) for each in jobs if each.is_done}
    return compare_images(compare(jobs).arms, predictions, **settings)


def with_wrong(num_images, wrong):
    is_right = np.ones(num_images, dtype=bool)
    is_right[list(wrong)] = False
    return is_right


GOOD, FAIR, BAD = with_wrong(200, range(4)), with_wrong(200, range(2, 10)), with_wrong(200, range(2, 40))


def test_clear_difference_is_one_between_models_and_not_between_settings():
    result = compared({"bad": BAD, "good": GOOD})
    assert result.better == "model=good"
    (pair,) = result.pairs
    assert (pair.first, pair.second, pair.paired.num_only_a, pair.paired.num_only_b) == (
        "model=good",
        "model=bad",
        36,
        2,
    )
    assert pair.p_value == pytest.approx(scipy.stats.binomtest(2, 38).pvalue)
    assert result.sentences[0] == "model=good: 98.0 % (one run); the most right answers"
    assert result.sentences[1].startswith("model=bad: 81.0 % (one run); worse by 17.0 points [")
    assert result.sentences[1].endswith("p < 0.001: 2 images only it has right, 36 only the best")
    assert result.sentences[2] == "of these trained models, that of model=good is better than the other one (p < 0.05)"
    assert result.sentences[3] == (
        "this holds for these models on more images of the same kind, and not for their settings: another seed may"
        " turn it; to compare the settings, train each with 6 seeds: seed=0,1,2,3,4,5"
    )
    assert "winner" not in " ".join(result.sentences)


def test_close_models_are_not_called_equal():
    result = compared({"good": GOOD, "fair": FAIR})
    assert result.better is None
    assert [arm.verdict for arm in result.arms] == ["best", "not_distinguishable"]
    expected = scipy.stats.binomtest(2, 8).pvalue
    assert f"p = {expected:.3f}" in result.sentences[1]
    assert "none is shown to be the best: not distinguishable from model=good: model=fair" in result.sentences[2]
    assert "equal" not in " ".join(result.sentences)


def test_p_values_are_adjusted_for_all_pairs():
    result = compared({"good": GOOD, "fair": FAIR, "bad": BAD})
    raw = [pair.paired.p_value for pair in result.pairs]
    assert [pair.p_value for pair in result.pairs] == holm(raw)
    assert len(raw) == 3
    assert [row[0] for row in result.pair_rows] == ["model=fair - model=bad"]
    assert "after Holm over 3 comparisons" not in result.sentences[-2]  # fair keeps good from being the best
    alone = compared({"good": GOOD, "poor": with_wrong(200, range(30, 70)), "bad": BAD})
    assert "better than every other one (p < 0.05 after Holm over 3 comparisons)" in " ".join(alone.sentences)
    assert "9 seeds" not in alone.sentences[-1]
    assert "7 seeds: seed=0,1,2,3,4,5,6" in alone.sentences[-1]


def test_tables_show_models_best_first_with_their_cost():
    jobs = [job("good", GOOD, seconds=125.0), job("fair", FAIR, seconds=2.5)]
    result = compared({"good": GOOD, "fair": FAIR}, jobs=jobs)
    rows = [dict(zip(result.header, row, strict=True)) for row in result.rows]
    assert [row["arm"] for row in rows] == ["model=good", "model=fair"]
    assert [row["verdict"] for row in rows] == ["highest mean", "not distinguishable"]
    assert [row["test"] for row in rows] == ["98.0 %", "96.0 %"]
    assert [row["right alone: best / arm"] for row in rows] == ["-", "6 / 2"]
    assert [row["s/job"] for row in rows] == ["125", "2.50"]
    assert (rows[0]["images/s"], rows[0]["parameters"]) == ("1,000", "12,345")


def test_much_cheaper_model_is_pointed_out_only_where_it_was_tested():
    def cheap_sentences(**seconds):
        rights = {"good": GOOD, "fair": FAIR, "bad": BAD}
        jobs = [job(name, rights[name], seconds=each) for name, each in seconds.items()]
        return [s for s in compared(rights, jobs=jobs).sentences if "of its time" in s]

    assert cheap_sentences(good=40.0, fair=12.0) == [
        "model=fair: not distinguishable from the best at 0.3 of its time (12.0 s a job instead of 40.0 s)"
    ]
    assert cheap_sentences(good=40.0, fair=30.0) == []
    assert cheap_sentences(good=40.0, bad=1.0) == []  # worse


def test_times_on_other_hardware_are_not_compared():
    jobs = [job("good", GOOD, seconds=40.0), job("fair", FAIR, seconds=1.0, device="cuda")]
    assert not [s for s in compared({"good": GOOD, "fair": FAIR}, jobs=jobs).sentences if "of its time" in s]


def test_arm_without_a_result_stands_last():
    jobs = [job("good", GOOD), job("dead", None), job("bad", BAD)]
    result = compared({"good": GOOD, "bad": BAD}, jobs=jobs)
    assert result.rows[-1][:5] == ("model=dead", "-", "-", "-", "no result")
    assert "model=dead: no result: 1 of 1 jobs failed" in result.sentences
    assert "is better than the other one (p < 0.05); without a result: model=dead" in " ".join(result.sentences)
    assert len(result.pairs) == 1


def test_each_arm_is_compared_at_the_rate_that_validation_chose():
    rights = {"good": GOOD, "bad": BAD}
    jobs = [job("good", GOOD, lr=0.1, val=0.9), job("good", BAD, lr=0.01, val=0.1)]
    jobs += [job("bad", GOOD, lr=0.1, val=0.1), job("bad", BAD, lr=0.01, val=0.9)]
    result = compared(rights, jobs=jobs)
    assert [row[:2] for row in result.rows] == [("model=good", "0.1"), ("model=bad", "0.01")]
    assert result.better == "model=good"


def test_learning_rates_that_were_not_tuned_are_told():
    result = compared({"bad": BAD, "good": GOOD}, without_grid=["optimizer"])
    assert result.sentences[-1].startswith("no winner named: each optimizer needs its own optimizer.lr grid")


def test_single_runs_are_those_of_all_arms():
    assert has_single_runs(compare([job("a", GOOD), job("b", BAD)]).arms)
    assert has_single_runs(compare([job("a", GOOD), job("b", BAD), job("c", None)]).arms)
    assert not has_single_runs(compare([job("a", GOOD), job("a", GOOD, seed=1), job("b", BAD)]).arms)
    assert not has_single_runs(compare([job("a", GOOD)]).arms)
    assert not has_single_runs(compare([job("a", GOOD), job("b", None)]).arms)


def test_equal_models_are_rarely_told_apart_although_the_best_of_them_is_looked_for():
    rng, found = np.random.default_rng(7), 0
    for _ in range(400):
        hard = rng.random(360) < 0.1  # images that each model may miss
        rights = {name: ~(hard & (rng.random(360) < 0.5)) for name in "abc"}
        found += any(pair.p_value < 0.05 for pair in compared(rights).pairs)
    assert found <= 20  # 5 %; 2.2 % of 4,000


def test_difference_that_is_there_is_found():
    rng, found = np.random.default_rng(6), 0
    for _ in range(50):
        rights = {"a": rng.random(1000) < 0.95, "b": rng.random(1000) < 0.90}
        found += compared(rights).better == "model=a"
    assert found >= 45
