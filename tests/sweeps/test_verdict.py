from dataclasses import replace

import numpy as np
import pytest

from cvtrain.sweeps.leaderboard import JobResult
from cvtrain.sweeps.verdict import compare

LRS = (0.1, 0.01, 0.001)


def job(arm, seed, accuracy, *, lr=None, val=None, status="done", split=None):
    key, _, word = arm.partition("=")
    overrides = {key: word, "seed": str(seed)} | ({} if lr is None else {"optimizer.lr": str(lr)})
    is_done = status == "done"
    return JobResult(
        overrides=overrides,
        run_dir=None,
        status=status,
        stop_reason="diverged" if status == "failed" else "finished",
        seed=seed,
        split_hash=split or f"split {seed}",
        val_accuracy=(accuracy if val is None else val) if is_done else None,
        test_accuracy=accuracy if is_done else None,
    )


def arms(num_seeds, **means):
    """Models whose accuracies share what a seed does to all, and differ by fixed means and a little noise."""
    rng = np.random.default_rng(0)
    shared = rng.normal(0, 0.02, num_seeds)
    return [
        job(f"model={name}", seed, mean + shared[seed] + rng.normal(0, 0.002))
        for name, mean in means.items()
        for seed in range(num_seeds)
    ]


def with_grid(jobs, *, key="model", best=0.01, lrs=LRS):
    """Every job at each learning rate, 20 points worse at all but the best one."""
    return [
        job(f"{key}={each.overrides['model']}", each.seed, each.test_accuracy - (0 if lr == best else 0.2), lr=lr)
        for each in jobs
        for lr in lrs
    ]


def sentence_of(result, arm):
    return next(sentence for sentence in result.sentences if sentence.startswith(f"{arm}: "))


def test_clear_difference_names_a_winner():
    losses = [0.03, 0.031, 0.029, 0.03, 0.032, 0.028]  # sd 0.001414, t 2.571: 3.0 +- 0.15 points
    result = compare(
        [
            job(m, s, 0.9 - (m == "model=bad") * loss)
            for m in ("model=bad", "model=good")
            for s, loss in enumerate(losses)
        ]
    )
    assert result.winner == "model=good"
    assert result.sentences[-1] == "winner: model=good (p < 0.05)"
    assert [each.verdict for each in result.arms] == ["best", "worse"]
    loser = result.arms[1]
    assert loser.p_value == 2 / 64
    assert sentence_of(result, "model=bad") == (
        "model=bad: 87.0 % +- 0.1 (n = 6); worse by 3.0 points [2.9, 3.1], p = 0.031"
    )
    assert sentence_of(result, "model=good").endswith("; the highest mean")


def test_pairing_by_seed_finds_what_unpaired_runs_hide():
    jobs = arms(8, good=0.93, bad=0.92)
    assert compare(jobs).winner == "model=good"
    shuffled = [job("model=bad", (j.seed + 3) % 8, j.test_accuracy) if "bad" in str(j.overrides) else j for j in jobs]
    result = compare(shuffled)
    assert result.winner is None
    assert "not distinguishable from the best: " in sentence_of(result, "model=bad")
    assert result.sentences[-1] == "no winner named: not distinguishable from model=good: model=bad"


@pytest.mark.parametrize("num_seeds", [2, 3, 4, 5])
def test_few_seeds_give_intervals_and_no_verdict(num_seeds):
    result = compare(arms(num_seeds, good=0.95, bad=0.50))
    assert result.winner is None
    assert result.arms[1].verdict == "undecided"
    assert result.arms[1].p_value is None
    assert "points [" in sentence_of(result, "model=bad")
    assert "worse" not in " ".join(result.sentences)
    assert result.sentences[-1] == (
        f"no winner named: n = {num_seeds} seeds cannot show a difference at 5 %; intervals only"
        " (6 seeds can: seed=0,1,2,3,4,5)"
    )


def test_more_arms_need_more_seeds():
    result = compare(arms(6, a=0.95, b=0.9, c=0.85))
    assert result.winner is None
    assert "n = 6 seeds cannot show a difference at 5 % in 3 comparisons" in result.sentences[-1]
    result = compare(arms(7, a=0.95, b=0.9, c=0.85))
    assert result.winner == "model=a"
    assert [each.p_value for each in result.arms[1:]] == [3 * 2 / 128] * 2  # the family: all three pairs


def test_one_seed_gives_neither_interval_nor_verdict():
    result = compare(arms(1, good=0.95, bad=0.50))
    assert result.winner is None
    assert "[" not in " ".join(result.sentences)
    assert sentence_of(result, "model=bad").endswith("points below the highest mean, in one pair of runs")
    assert result.sentences[-1].startswith("no winner named: one seed shows no spread; 6 seeds can: seed=0,1,2,")


def test_identical_arms_are_not_distinguishable():
    result = compare([job(f"model={m}", s, 1.0) for m in "ab" for s in range(8)])
    assert result.winner is None
    assert result.arms[1].p_value == 1
    assert sentence_of(result, "model=b") == (
        "model=b: 100.0 % +- 0.0 (n = 8); not distinguishable from the best:"
        " 0.00 points [0.00, 0.00] below it, p = 1.000"
    )


def test_difference_that_is_rarely_seen_is_no_claim():
    # Significant by its size in a part of the seeds, but ahead in only 8 of 12.
    gains = [0.1, 0.11, 0.12, 0.09, 0.1, 0.13, 0.1, 0.11, -0.001, -0.001, -0.001, -0.001]
    jobs = [job("model=a", s, 0.5 + gain) for s, gain in enumerate(gains)] + [job("model=b", s, 0.5) for s in range(12)]
    result = compare(jobs)
    assert result.arms[1].p_value < 0.05
    assert result.arms[1].difference.probability_greater == pytest.approx(8 / 12)
    assert result.winner is None


@pytest.mark.parametrize(
    ("key", "group"), [("optimizer", "optimizer"), ("loss", "loss"), ("optimizer.momentum", "optimizer")]
)
def test_optimizers_and_losses_without_a_grid_have_no_winner(key, group):
    jobs = [job(f"{key}={j.overrides['model']}", j.seed, j.test_accuracy) for j in arms(8, good=0.95, bad=0.5)]
    result = compare(jobs)
    assert result.winner is None
    assert [each.verdict for each in result.arms] == ["best", "undecided"]
    assert result.sentences[-1] == (
        f"no winner named: each {group} needs its own optimizer.lr grid; add optimizer.lr=0.1,0.01,0.001"
    )
    one_rate = with_grid(arms(8, good=0.95, bad=0.5), key=key, lrs=[0.01])
    assert compare(one_rate).winner is None
    assert compare(with_grid(arms(8, good=0.95, bad=0.5), key=key)).winner == f"{key}=good"


def test_each_arm_is_compared_at_its_own_learning_rate():
    good, bad = arms(8, good=0.95), arms(8, bad=0.9)
    jobs = with_grid(good, key="optimizer", best=0.1) + with_grid(bad, key="optimizer", best=0.01)
    result = compare(jobs)
    assert [each.arm.chosen.lr for each in result.arms] == [0.1, 0.01]
    assert result.winner == "optimizer=good"
    assert "optimizer=good: the grid ends at its best optimizer.lr=0.1: widen it" in result.sentences
    assert not [s for s in result.sentences if s.startswith("optimizer=bad: the grid")]


def test_winner_over_an_arm_that_is_not_tuned_says_so():
    jobs = with_grid(arms(8, good=0.95), key="optimizer") + with_grid(arms(8, bad=0.9), key="optimizer", best=0.1)
    assert compare(jobs).sentences[-1] == (
        "winner: optimizer=good (p < 0.05); not yet tuned, as the grid ends at the best value: optimizer=bad"
    )


def test_tables_show_every_arm_and_every_rate():
    result = compare(with_grid(arms(8, good=0.95, bad=0.9), key="optimizer"))
    assert [row[:3] for row in result.rows] == [("optimizer=good", "0.01", "8"), ("optimizer=bad", "0.01", "8")]
    assert {len(row) for row in result.rows} == {len(result.header)}
    assert {len(row) for row in result.lr_rows} == {len(result.lr_header)}
    assert [row[1] for row in result.lr_rows] == ["0.001", "0.01", "0.1"] * 2
    assert [row[-1] for row in result.lr_rows] == ["", "yes", ""] * 2
    assert compare(arms(8, good=0.95, bad=0.9)).lr_rows == []


def test_series_hold_the_validation_accuracy_of_each_rate():
    jobs = [job("optimizer=a", s, 0.1, lr=lr, val=lr + s / 10) for s in (0, 2) for lr in (0.3, 0.2)]
    jobs += [job("optimizer=a", s, 0.1, lr=9, status="failed") for s in (0, 2)]
    jobs += [job("optimizer=b", 0, 0.1, lr=lr, val=0.5) for lr in (0.1, 0.2)]
    series = compare(jobs).series
    assert series["optimizer=b"] == [(0.1, 0.5, 0.0), (0.2, 0.5, 0.0)]
    assert [lr for lr, _, _ in series["optimizer=a"]] == [0.2, 0.3]
    assert series["optimizer=a"][0][1:] == pytest.approx((0.3, 0.2 / 2**0.5))


def test_failed_jobs_are_told_and_counted():
    jobs = with_grid(arms(8, good=0.95, bad=0.9), key="optimizer")
    lost = [j for j in jobs if (j.overrides["optimizer"], j.overrides["optimizer.lr"], j.seed) != ("bad", "0.01", 5)]
    result = compare([*lost, job("optimizer=bad", 5, 0.9, lr=0.01, status="failed")])
    assert "optimizer=bad: optimizer.lr=0.01: 1 of 8 jobs diverged, so it was not chosen" in result.sentences
    assert result.arms[1].arm.chosen.lr != 0.01
    assert ("optimizer=bad", "0.01", "7 of 8") in [row[:3] for row in result.lr_rows]


def test_arm_that_lost_jobs_is_no_winner():
    jobs = arms(8, good=0.95, bad=0.9)
    result = compare([*jobs, job("model=good", 8, 0.9, status="failed"), job("model=bad", 8, 0.9)])
    assert result.winner is None
    assert result.sentences[-1] == "no winner named: model=good lost jobs: 1 of 9 jobs diverged"
    assert result.rows[0][2] == "8 of 9"
    assert "runs without a partner left out: 1" in sentence_of(result, "model=bad")
    assert result.arms[1].verdict == "worse"


def test_arm_without_a_result_stands_last_and_is_named():
    jobs = arms(8, good=0.95, bad=0.9) + [job("model=dead", s, 0, status="failed") for s in range(8)]
    result = compare(jobs)
    assert result.rows[-1][:3] == ("model=dead", "-", "0 of 8")
    assert sentence_of(result, "model=dead") == "model=dead: no result: 8 of 8 jobs diverged"
    assert result.sentences[-1] == "winner: model=good (p < 0.05); without a result: model=dead"
    alone = compare(jobs[:8] + jobs[16:])
    assert alone.winner is None
    assert alone.sentences[-1] == "no winner named: fewer than two arms have a result"


def test_arms_on_other_splits_are_not_compared():
    jobs = [job(f"data={m}", s, 0.9 if m == "a" else 0.5, split=f"{m}{s}") for m in "ab" for s in range(8)]
    result = compare(jobs)
    assert result.winner is None
    assert result.arms[1].verdict == "not_comparable"
    assert "no run of both has the same seed and split" in sentence_of(result, "data=b")
    assert result.sentences[-1] == "no winner named: no two arms have runs with the same seed and split"


def test_best_arm_without_enough_common_runs_is_no_winner():
    jobs = [*arms(8, good=0.95, bad=0.9), job("model=lonely", 0, 0.99), job("model=other", 99, 0.1)]
    result = compare(jobs)
    assert result.winner is None
    assert result.sentences[-1].startswith("no winner named: too few runs in common with model=lonely: ")


def test_rates_without_validation_are_not_chosen_by_test():
    jobs = with_grid(arms(8, a=0.9, b=0.8), key="optimizer")
    blind = [j.__class__(**{**j.__dict__, "val_accuracy": None}) for j in jobs]
    result = compare(blind)
    assert result.winner is None
    assert all("test images must not choose it" in sentence for sentence in result.sentences[:2])
    assert result.series == {}


def test_one_arm_has_figures_and_no_rival():
    one_run = compare([job("model=a", 0, 0.9)])
    assert one_run.sentences == (
        "all runs: 90.0 % (n = 1)",
        "n = 1 shows no spread and has no interval: add seed=0,1,2",
    )
    result = compare([job("model=a", s, 0.9) for s in range(3)])
    assert result.sentences == ("all runs: 90.0 % +- 0.0 (n = 3)",)
    assert (result.winner, len(result.rows)) == (None, 1)


def test_sweep_without_jobs_says_nothing():
    result = compare([])
    assert (result.rows, result.sentences, result.winner, result.arms) == ([], (), None, ())


def test_equal_arms_rarely_differ_although_the_best_of_them_is_looked_for():
    rng = np.random.default_rng(1)
    found = 0
    for _ in range(100):
        result = compare([job(f"model={m}", s, rng.normal(0.9, 0.01)) for m in range(5) for s in range(10)])
        found += any(each.verdict == "worse" for each in result.arms)
    assert found <= 5


def test_pairs_without_the_best_arm_have_a_table_of_their_own():
    result = compare(arms(8, good=0.93, fair=0.90, poor=0.86))
    (row,) = result.pair_rows
    assert row[:2] == ("model=fair - model=poor", "8")
    mean, low, high = (float(word.strip("[],")) for word in row[2].split())
    assert low < 4.0 < high
    assert mean == pytest.approx(4.0, abs=0.3)
    assert float(row[3]) < 0.05
    assert compare(arms(8, good=0.93, bad=0.9)).pair_rows == []
    assert compare(arms(2, **{f"m{i}": 0.9 - i / 100 for i in range(7)})).pair_rows == []


def with_seconds(jobs, device="cpu", **seconds):
    return [replace(each, seconds=seconds[each.overrides["model"]], device=device) for each in jobs]


def test_much_cheaper_arm_is_pointed_out_where_it_was_tested():
    gains = (0.002, -0.002, 0.002, -0.002, 0.002, -0.002, 0.002, 0.001)
    level = [job("model=small", s, 0.9 + s / 1000) for s in range(8)]
    level += [job("model=big", s, 0.9 + s / 1000 + gain) for s, gain in enumerate(gains)]
    result = compare(with_seconds(level, big=8.0, small=2.0))
    cheap = "model=small: not distinguishable from the best at 0.2 of its time (2.00 s a job instead of 8.00 s)"
    assert cheap in result.sentences
    assert result.arms[1].time_share == 0.25

    def is_pointed_out(jobs):
        return any("of its time" in sentence for sentence in compare(jobs).sentences)

    assert not is_pointed_out(with_seconds(level, big=8.0, small=5.0))
    assert not is_pointed_out(with_seconds([each for each in level if each.seed < 4], big=8.0, small=2.0))  # untested
    assert not is_pointed_out(with_seconds(arms(8, big=0.95, small=0.9), big=8.0, small=2.0))  # worse
    elsewhere = [replace(each, device=each.overrides["model"]) for each in with_seconds(level, big=8.0, small=2.0)]
    assert not is_pointed_out(elsewhere)


def test_tables_tell_verdict_and_cost():
    result = compare(with_seconds(arms(8, good=0.95, bad=0.9), good=250.0, bad=3.0))
    good, bad = (dict(zip(result.header, row, strict=True)) for row in result.rows)
    assert (good["verdict"], bad["verdict"]) == ("highest mean", "worse")
    assert (good["s/job"], bad["s/job"], bad["parameters"]) == ("250", "3.00", "-")
    undecided = compare(arms(2, good=0.95, bad=0.9))
    assert [dict(zip(undecided.header, row, strict=True))["verdict"] for row in undecided.rows][1] == "not tested"
    (alone,) = compare(arms(3, good=0.95)).rows
    assert dict(zip(result.header, alone, strict=True))["verdict"] == "-"


def test_every_group_needs_a_grid_where_arms_have_other_learning_rates():
    jobs = [
        job(f"model={j.overrides['model']}", j.seed, j.test_accuracy, lr=lr)
        for j, lr in ((j, 0.1 if j.overrides["model"] == "good" else 0.01) for j in arms(8, good=0.95, bad=0.5))
    ]
    result = compare(jobs)
    assert (result.winner, result.without_grid) == (None, ("model",))
    assert result.sentences[-1].startswith("no winner named: each model needs its own optimizer.lr grid")
    same = [replace(each, overrides=each.overrides | {"optimizer.lr": "0.1"}) for each in jobs]
    assert compare(same).winner == "model=good"


def test_every_pair_of_arms_is_kept():
    result = compare([*arms(8, good=0.95, bad=0.9, fair=0.92), job("model=dead", 0, 0, status="failed")])
    assert [(each.first, each.second) for each in result.pairs] == [
        ("model=good", "model=fair"),
        ("model=good", "model=bad"),
        ("model=fair", "model=bad"),
    ]
    assert result.pairs[0].p_value == result.arms[1].p_value


def test_of_many_arms_the_first_are_said_and_all_are_shown():
    result = compare(arms(2, **{f"m{i:02}": 0.9 - i / 100 for i in range(15)}))
    assert len(result.rows) == 15
    assert len([s for s in result.sentences if s.startswith("model=")]) == 12
    assert "3 more arms are in the table" in result.sentences


def test_pruned_rates_are_summed_up_in_one_sentence():
    jobs = [
        job("model=a", 0, 0.9 - lr, lr=lr, status="pruned" if lr > 0.02 else "done") for lr in (0.01, 0.02, 0.03, 0.04)
    ]
    result = compare(jobs)
    assert [s for s in result.sentences if "pruned" in s] == [
        "all runs: 2 of 4 jobs pruned: the search ended them early, and they are not compared"
    ]
    assert result.arms[0].arm.chosen.lr == 0.01
