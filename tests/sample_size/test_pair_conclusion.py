"""What two sweeps show together, from figures whose answer is known, and the words for every answer."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from cvtrain.analysis.comparison import holm, paired_difference
from cvtrain.analysis.learning_curve.equivalence import CrossingResult, EquivalenceResult, SizeDifferenceResult
from cvtrain.compose import compose
from cvtrain.sample_size import pair_sentences as say
from cvtrain.sample_size.pair import SettingDifference, Sweep
from cvtrain.sample_size.pair_conclusion import compare_pair, json_text, verdicts
from cvtrain.sample_size.table import Row

SIZES = (10, 20, 50, 100, 200, 500)
CONFIG = compose(["task=sample_size_sweep"])


def accuracies_of(*, half_at, power=0.7, sizes=SIZES):
    """Accuracies on a Hill curve from chance, 0.1, to 1."""
    return {size: 0.1 + 0.9 / (1 + (half_at / size) ** power) for size in sizes}


def sweep_of(means, *, num_replicates=8, seed=0, scatter=0.01, model="lenet", num_runs=None):
    """A sweep with these mean accuracies; what a replicate draws well it does for every sweep."""
    luck, own = np.random.default_rng(1), np.random.default_rng(seed)
    rows = tuple(
        Row(size, replicate, 1, 1, 1, 1, "finished", 1.0, 1.0, float(np.clip(mean + noise, 0, 1)), 1.0, 1.0, "split")
        for size, mean in means.items()
        for replicate, noise in enumerate(luck.normal(0, 0.03, num_replicates) + own.normal(0, scatter, num_replicates))
    )
    config = {**CONFIG, "choices": {**CONFIG["choices"], "model": model}}
    counts = (1000,) * 10
    return Sweep(Path("/sweeps") / model, config, rows, num_runs or len(rows), "f", tuple("abcdefghij"), counts)


def pair_of(a, b, **facts):
    return sweep_of(a, seed=2, **facts), sweep_of(b, seed=3, model="conv_pool", **facts)


def differences_of(*by_size):
    """Paired differences at sizes 10, 20, ... as the comparison of curves makes them."""
    paired = [paired_difference(dict(enumerate(each)), dict.fromkeys(range(len(each)), 0.0)) for each in by_size]
    tested = [each for each in paired if each.p_value is not None]
    adjusted = iter(holm([each.p_value for each in tested]))
    return [
        SizeDifferenceResult(10 * i, each, next(adjusted) if each.p_value is not None else None)
        for i, each in enumerate(paired, start=1)
    ]


# ----------------------------------------------------------------------------------------------------- verdicts


def test_verdicts_follow_the_adjusted_p_value():
    up, down = [0.01 * i for i in range(1, 11)], [-0.01 * i for i in range(1, 11)]
    mixed = [0.01, -0.02, 0.03, -0.04, 0.01, -0.02, 0.03, -0.01, 0.01, 0.02]
    assert verdicts(differences_of(up, down, mixed)) == ["a_better", "b_better", "not_told_apart"]


def test_pairs_are_too_few_where_the_smallest_p_value_would_not_pass():
    up = [0.01] * 6  # p = 1/32
    assert verdicts(differences_of(up)) == ["a_better"]
    assert verdicts(differences_of(up, up)) == ["too_few_pairs"] * 2  # adjusted: 1/16
    assert verdicts(differences_of([0.01] * 5)) == ["too_few_pairs"]
    assert verdicts(differences_of([0.01], up)) == ["too_few_pairs", "a_better"]  # one pair is no test


def test_pairs_that_pass_after_others_have_passed_are_not_too_few():
    sure, mixed = [0.01] * 12, [0.01, -0.02, 0.03, -0.04, 0.01, 0.01]
    assert verdicts(differences_of(sure, mixed)) == ["a_better", "not_told_apart"]


# ------------------------------------------------------------------------------------------------------- curves


@pytest.fixture(scope="module")
def crossing():
    """Curves that cross at 60 images per class."""
    a, b = pair_of(accuracies_of(half_at=60, power=0.4), accuracies_of(half_at=60, power=1.0), num_replicates=10)
    return a, b, compare_pair(a, b, seed=0)


def test_crossing_is_found_and_said(crossing):
    _, _, conclusion = crossing
    (found,) = conclusion.curves.crossings.crossings
    assert found.low <= 60 <= found.high
    assert conclusion.leader is None
    words = say.lead_sentence(conclusion)
    assert words == (
        f"by the common sizes lenet is ahead up to {found.per_class} images per class [{found.low}, {found.high}],"
        " conv_pool beyond"
    )


def test_figures_of_a_size_agree_with_scipy(crossing):
    a, b, conclusion = crossing
    size = conclusion.sizes[1]
    of_a, of_b = ([row.test_accuracy for row in sweep.rows if row.per_class == 20] for sweep in (a, b))
    test = scipy.stats.ttest_rel(of_a, of_b).confidence_interval()
    assert (size.per_class, size.a.mean, size.b.mean) == (
        20,
        pytest.approx(np.mean(of_a)),
        pytest.approx(np.mean(of_b)),
    )
    assert (size.paired.difference.low, size.paired.difference.high) == pytest.approx((test.low, test.high))
    cells = say.size_row(size)
    assert cells[:3] == ("20", f"{100 * np.mean(of_a):.1f} %", f"{100 * np.mean(of_b):.1f} %")
    mean = np.mean(of_a) - np.mean(of_b)
    assert cells[3] == f"{100 * mean:+.1f} [{100 * test.low:+.1f}, {100 * test.high:+.1f}]"
    assert len(cells) == len(say.header(conclusion.names))


def test_each_is_said_to_be_better_where_it_is(crossing):
    _, _, conclusion = crossing
    found = [size.verdict for size in conclusion.sizes]
    assert (found[:2], found[-2:]) == (["a_better"] * 2, ["b_better"] * 2)
    lines = say.verdict_sentences(conclusion)
    assert lines[0].startswith("by the paired test lenet is better with 10")
    assert lines[0].endswith("images per class (p < 0.05 after Holm over 6 sizes)")
    assert lines[1].startswith("by the paired test conv_pool is better with ")
    assert "200 and 500 images per class" in lines[1]


def test_one_that_is_ahead_throughout_is_said_to_be():
    a, b = pair_of(accuracies_of(half_at=100), accuracies_of(half_at=40))
    conclusion = compare_pair(a, b, seed=0)
    assert conclusion.leader == "conv_pool"
    assert say.lead_sentence(conclusion) == (
        "no crossing from 10 to 500 images per class: by the common sizes conv_pool is ahead throughout"
    )
    assert compare_pair(b, a, seed=0).leader == "conv_pool"


def test_equal_sweeps_are_not_told_apart():
    a, b = pair_of(accuracies_of(half_at=60), accuracies_of(half_at=60), num_replicates=10)
    conclusion = compare_pair(a, b, seed=0)
    assert conclusion.leader is None
    assert say.verdict_sentences(conclusion) == [
        "the paired test does not tell them apart with 10, 20, 50, 100, 200 and 500 images per class"
    ]
    share = conclusion.curves.crossings.share_passed_on
    assert say.lead_sentence(conclusion) == (
        "whether the curves cross from 10 to 500 images per class cannot be told:"
        f" {100 * share:.0f} % of the plausible pairs of curves begin and end with another leader"
    )


def test_single_trainings_give_no_verdict_and_no_lead():
    a, b = pair_of(accuracies_of(half_at=1000), accuracies_of(half_at=40), num_replicates=1)
    conclusion = compare_pair(a, b, seed=0)
    assert conclusion.shares_throughout[1] > 0.975
    assert conclusion.leader is None
    lines = say.sentences(conclusion)
    assert lines[0] == (
        "no verdict with 10, 20, 50, 100, 200 and 500 images per class:"
        " 1 pair of trainings at each cannot show a difference, 8 can: replicates=8 or more in both"
    )
    assert lines[1] == "who is ahead cannot be told: single trainings do not show how far they scatter"
    assert any(line.startswith("note on lenet: one run per size") for line in lines)
    assert say.size_row(conclusion.sizes[0])[4:] == ("-", "-", "1")
    assert "[" not in say.size_row(conclusion.sizes[0])[3]


def test_sizes_that_meet_at_one_end_have_no_range_to_cross_in():
    a, b = pair_of(accuracies_of(half_at=60), accuracies_of(half_at=40))
    a = replace(a, rows=tuple(row for row in a.rows if row.per_class <= 50))
    b = replace(b, rows=tuple(row for row in b.rows if row.per_class >= 50))
    conclusion = compare_pair(a, b, seed=0)
    assert [size.per_class for size in conclusion.sizes] == [50]
    assert conclusion.shares_throughout == (0.0, 0.0)
    assert say.lead_sentence(conclusion) == "whether the curves cross cannot be told: they have one size in common"
    assert say.verdict_sentences(conclusion)[0].endswith("(p < 0.05)")


def test_sizes_without_a_pair_are_left_out():
    a, b = pair_of(accuracies_of(half_at=60), accuracies_of(half_at=40))
    b = replace(b, rows=tuple(replace(row, replicate=row.replicate + 20 * (row.per_class == 50)) for row in b.rows))
    conclusion = compare_pair(a, b, seed=0)
    assert [size.per_class for size in conclusion.sizes] == [10, 20, 100, 200, 500]
    assert conclusion.num_pairs == 5 * 8


def test_seed_moves_the_plausible_curves_alone(crossing):
    a, b, conclusion = crossing
    again, other = compare_pair(a, b, seed=0), compare_pair(a, b, seed=1)
    assert again.curves == conclusion.curves
    assert other.sizes == conclusion.sizes
    assert other.curves.equivalences != conclusion.curves.equivalences


def test_json_is_strict_and_holds_every_figure(crossing):
    a, b, conclusion = crossing

    def refuse(word):
        raise AssertionError(word)

    plain = json.loads(json_text(conclusion, a, b, sentences=["words"]), parse_constant=refuse)
    assert plain["names"] == ["lenet", "conv_pool"]
    assert plain["runs"] == ["/sweeps/lenet", "/sweeps/conv_pool"]
    assert plain["differ_in"] == [{"key": "model", "a": "lenet", "b": "conv_pool", "is_choice": True}]
    assert [size["per_class"] for size in plain["sizes"]] == list(SIZES)
    assert plain["sizes"][0]["paired"]["difference"]["mean"] == conclusion.sizes[0].paired.difference.mean
    assert plain["crossings"]["crossings"][0]["per_class"] == conclusion.curves.crossings.crossings[0].per_class
    assert [each["per_class"] for each in plain["equivalences"]] == list(SIZES)
    assert plain["sentences"] == ["words"]


# -------------------------------------------------------------------------------------------------------- words


def equivalence(**changes):
    figures = {"status": "measured", "b_per_class": 830, "low": 700, "high": 990, "ratio": 1.66}
    whole = {"per_class": 500, "accuracy": 0.8, "ratio_low": 1.4, "ratio_high": 1.98}
    return EquivalenceResult(**{**whole, **figures, "smallest_per_class": 10, "limit_per_class": 20_000, **changes})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "lenet with 830 [700, 990]; 1.7 times as many"),
        ({"low": None, "b_per_class": 12, "ratio": 0.024}, "lenet with 12 [fewer, 990]; 0.024 times as many"),
        ({"ratio": 0.96}, "lenet with 830 [700, 990]; 1.0 times as many"),
        (
            {"status": "extrapolated", "b_per_class": 9000, "high": None, "ratio": 18.0},
            "lenet with 9,000 [700, more] (an extrapolation); 18.0 times as many",
        ),
        (
            {"status": "more", "b_per_class": None, "low": None, "high": None, "ratio": None},
            "lenet with more than 20,000",
        ),
        (
            {"status": "more", "b_per_class": None, "high": None, "ratio": None},
            "lenet with more than 20,000 [700, more]",
        ),
        (
            {"status": "fewer", "b_per_class": None, "low": None, "high": None, "ratio": None},
            "lenet with fewer than 10",
        ),
        (
            {"status": "fewer", "b_per_class": None, "low": None, "high": 30, "ratio": None},
            "lenet with fewer than 10 [fewer, 30]",
        ),
    ],
)
def test_every_equivalence_has_its_words(changes, words):
    said = say.equivalence_sentence(equivalence(**changes), ("conv_pool", "lenet"))
    assert said == f"conv_pool with 500 images per class = {words}"


def test_lead_that_comes_back_is_told_in_order(crossing):
    _, _, conclusion = crossing
    twice = (CrossingResult(1180, 1020, 1260, "A", "B"), CrossingResult(1900, 1700, 2200, "B", "A"))
    crossings = replace(conclusion.curves.crossings, crossings=twice)
    said = say.lead_sentence(replace(conclusion, curves=replace(conclusion.curves, crossings=crossings)))
    assert said == (
        "by the common sizes lenet is ahead up to 1,180 images per class [1,020, 1,260],"
        " conv_pool is ahead up to 1,900 images per class [1,700, 2,200], lenet beyond"
    )


def test_refusal_of_the_second_says_how_far_it_is_followed(crossing):
    _, _, conclusion = crossing
    refused = replace(conclusion, curves=replace(conclusion.curves, b_refusal="ill-behaved curve"))
    assert "conv_pool is not followed beyond its sizes: ill-behaved curve" in say.sentences(refused)
    assert not any("not followed" in line for line in say.sentences(conclusion))


def test_cautions_name_what_weakens_the_comparison(crossing):
    a, b, conclusion = crossing
    assert say.cautions(a, b, conclusion) == []
    unfinished = replace(a, rows=a.rows[:-3], num_runs=60)
    lines = say.cautions(unfinished, b, compare_pair(unfinished, b, seed=0))
    assert lines == [
        "lenet is not finished: 57 of 60 trainings are done; continue with: cvtrain resume=/sweeps/lenet",
        "3 trainings have no partner in the other sweep: the curves count them, the differences not",
    ]


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (["model"], []),
        (["protocol"], []),
        (["model", "augment"], ["what is found is due to model and augment together, not to model alone"]),
        (
            ["model", "protocol"],
            [
                "what is found is due to model and protocol together, not to model alone;"
                " the protocols train for different lengths"
            ],
        ),
        (["loss"], ["each loss has one learning rate here: the better one may only be the better tuned one"]),
        (["optimizer"], ["each optimizer has one learning rate here: the better one may only be the better tuned one"]),
    ],
)
def test_settings_beside_the_first_are_warned_of(crossing, keys, words):
    a, b, conclusion = crossing
    differing = tuple(SettingDifference(key, "x", "y", is_choice=True) for key in keys)
    assert say.cautions(a, b, replace(conclusion, settings=differing)) == words


def test_differences_of_settings_are_listed():
    found = [SettingDifference("model", "lenet", "mlp", True), SettingDifference("optimizer.lr", "0.1", "0.2", False)]
    assert say.differ_sentence(found) == "they differ in model=lenet / mlp; optimizer.lr=0.1 / 0.2"
    assert say.differ_sentence([]) == "their settings do not differ"


@pytest.mark.parametrize(("p_value", "words"), [(None, "-"), (0.04, "0.040"), (0.0005, "< 0.001"), (1.0, "1.000")])
def test_small_p_values_are_not_zero(crossing, p_value, words):
    size = replace(crossing[2].sizes[0], holm_p_value=p_value)
    assert say.size_row(size)[5] == words
