"""What two sample-size sweeps show together, in words and table cells.

Knows conclusions; decides nothing. Accuracies are in per cent, differences in points.
"""

from __future__ import annotations

from collections.abc import Sequence

from cvtrain.analysis.comparison import MeanResult, pairs_needed
from cvtrain.analysis.learning_curve.equivalence import CrossingResult, EquivalenceResult
from cvtrain.sample_size.pair import SettingDifference, Sweep
from cvtrain.sample_size.pair_conclusion import ALPHA, ComparedSize, PairConclusion, Verdict
from cvtrain.sample_size.sentences import percent, points, rounded

FEW = 0.05
"""Share of the plausible pairs of curves below which nothing speaks for a crossing."""

LEGEND = (
    "brackets: 95 % intervals of differences and crossings, 90 % of numbers of images;"
    " p (Holm): adjusted for all sizes of the table"
)

_LEFT_TO_THE_OPTIMIZER = ("optimizer", "loss")
"""Groups whose options each have a learning rate that suits them."""


def header(names: tuple[str, str]) -> tuple[str, ...]:
    """Of the table of sizes."""
    return ("per class", *names, "difference [95 %]", "p", "p (Holm)", "pairs")


def size_row(size: ComparedSize) -> tuple[str, ...]:
    """A row of the table of sizes."""
    assert size.paired.difference is not None, "there is a pair"
    return (
        f"{size.per_class:,}",
        f"{percent(size.a.mean)} %",
        f"{percent(size.b.mean)} %",
        _difference(size.paired.difference),
        _p_value(size.paired.p_value),
        _p_value(size.holm_p_value),
        str(size.paired.num_pairs),
    )


def _difference(difference: MeanResult) -> str:
    mean = points(difference.mean)
    if difference.low is None or difference.high is None:
        return mean
    return f"{mean} [{points(difference.low)}, {points(difference.high)}]"


def _p_value(p_value: float | None) -> str:
    if p_value is None:
        return "-"
    return f"{p_value:.3f}" if p_value >= 0.001 else "< 0.001"


# ------------------------------------------------------------------------------------------------------- before


def differ_sentence(differences: Sequence[SettingDifference]) -> str:
    """What the two differ in."""
    if not differences:
        return "their settings do not differ"
    return f"they differ in {'; '.join(f'{each.key}={each.a} / {each.b}' for each in differences)}"


def cautions(a: Sweep, b: Sweep, conclusion: PairConclusion) -> list[str]:
    """What makes the comparison less than it seems to be."""
    keys = [each.key for each in conclusion.settings]
    found = [
        f"{name} is not finished: {len(sweep.rows)} of {sweep.num_runs} trainings are done;"
        f" continue with: cvtrain resume={sweep.path}"
        for name, sweep in zip(conclusion.names, (a, b), strict=True)
        if len(sweep.rows) < sweep.num_runs
    ]
    if len(keys) > 1:
        also = "; the protocols train for different lengths" if "protocol" in keys else ""
        found.append(f"what is found is due to {_listed(keys)} together, not to {keys[0]} alone{also}")
    found += [
        f"each {group} has one learning rate here: the better one may only be the better tuned one"
        for group in _LEFT_TO_THE_OPTIMIZER
        if group in keys
    ]
    num_unpaired = len(a.rows) + len(b.rows) - 2 * conclusion.num_pairs
    if num_unpaired:
        have = "training has" if num_unpaired == 1 else "trainings have"
        found.append(f"{num_unpaired} {have} no partner in the other sweep: the curves count them, the differences not")
    return found


# -------------------------------------------------------------------------------------------------------- after


def sentences(conclusion: PairConclusion) -> list[str]:
    """Everything that the two show."""
    lines = [*verdict_sentences(conclusion), lead_sentence(conclusion)]
    lines += [equivalence_sentence(each, conclusion.names) for each in conclusion.curves.equivalences]
    if conclusion.curves.b_refusal:
        lines.append(f"{conclusion.names[1]} is not followed beyond its sizes: {conclusion.curves.b_refusal}")
    lines += [
        f"note on {name}: {note}"
        for name, fit in zip(conclusion.names, conclusion.fits, strict=True)
        for note in fit.notes
    ]
    return lines


def verdict_sentences(conclusion: PairConclusion) -> list[str]:
    """At which sizes a test tells the two apart, at which it does not, and at which it never could."""
    num_sizes = len(conclusion.sizes)
    family = f"p < {ALPHA:g}" + (f" after Holm over {num_sizes} sizes" if num_sizes > 1 else "")
    lines = []
    for name, verdict in zip(conclusion.names, ("a_better", "b_better"), strict=True):
        if sizes := _sizes_with(conclusion, verdict):
            lines.append(f"by the paired test {name} is better with {_at(sizes)} ({family})")
    if sizes := _sizes_with(conclusion, "not_told_apart"):
        lines.append(f"the paired test does not tell them apart with {_at(sizes)}")
    if sizes := _sizes_with(conclusion, "too_few_pairs"):
        lines.append(f"no verdict with {_at(sizes)}: {_too_few(sizes, num_sizes=num_sizes)}")
    return lines


def _sizes_with(conclusion: PairConclusion, verdict: Verdict) -> list[ComparedSize]:
    return [size for size in conclusion.sizes if size.verdict == verdict]


def _at(sizes: Sequence[ComparedSize]) -> str:
    return f"{_listed([f'{size.per_class:,}' for size in sizes])} images per class"


def _listed(words: Sequence[str]) -> str:
    """`10, 20 and 50`."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _too_few(sizes: Sequence[ComparedSize], *, num_sizes: int) -> str:
    counts = [size.paired.num_pairs for size in sizes]
    low, high = min(counts), max(counts)
    found = f"{low} pair{'s' if high > 1 else ''}" if low == high else f"{low} to {high} pairs"
    needed = pairs_needed(num_sizes, alpha=ALPHA)
    if needed is None:
        return f"{found} of trainings at each are too few, and no number is enough for {num_sizes} sizes"
    return f"{found} of trainings at each cannot show a difference, {needed} can: replicates={needed} or more in both"


def lead_sentence(conclusion: PairConclusion) -> str:
    """Who is ahead from where to where, by the sizes that both have."""
    found = conclusion.curves.crossings
    if not conclusion.has_spread:
        return "who is ahead cannot be told: single trainings do not show how far they scatter"
    if found is None:
        return "whether the curves cross cannot be told: they have one size in common"
    if found.crossings:
        return _crossings(found.crossings, conclusion.names)
    span = f"from {found.from_per_class:,} to {found.to_per_class:,} images per class"
    if conclusion.leader:
        return f"no crossing {span}: by the common sizes {conclusion.leader} is ahead throughout"
    if found.share_passed_on < FEW:
        same = f"{100 * (1 - found.share_passed_on):.0f} % of the plausible pairs of curves"
        return f"no sign of a crossing {span}: {same} begin and end with the same leader"
    share = f"{100 * found.share_passed_on:.0f} % of the plausible pairs of curves begin and end with another leader"
    return f"whether the curves cross {span} cannot be told: {share}"


def _crossings(crossings: Sequence[CrossingResult], names: tuple[str, str]) -> str:
    """`lenet is ahead up to 180 images per class [120, 260], resnet18 beyond`."""
    words = []
    for each in crossings:
        place = f"up to {rounded(each.per_class)} images per class [{rounded(each.low)}, {rounded(each.high)}]"
        words.append(f"{names['AB'.index(each.ahead_before)]} is ahead {place}")
    return f"by the common sizes {', '.join(words)}, {names['AB'.index(crossings[-1].ahead_after)]} beyond"


def equivalence_sentence(result: EquivalenceResult, names: tuple[str, str]) -> str:
    """What the images of the first are worth in images of the second."""
    a, b = names
    given = f"{a} with {result.per_class:,} images per class = {b} with"
    ends = f"[{_end(result.low, 'fewer')}, {_end(result.high, 'more')}]"
    if result.b_per_class is None or result.ratio is None:
        is_more = result.status == "more"
        than = f"more than {result.limit_per_class:,}" if is_more else f"fewer than {result.smallest_per_class:,}"
        return f"{given} {than}" + (f" {ends}" if (result.low if is_more else result.high) is not None else "")
    words = " (an extrapolation)" if result.status == "extrapolated" else ""
    return f"{given} {rounded(result.b_per_class)} {ends}{words}; {_ratio(result.ratio)} times as many"


def _end(size: int | None, word: str) -> str:
    return word if size is None else rounded(size)


def _ratio(ratio: float) -> str:
    return f"{ratio:,.1f}" if ratio >= 0.95 else f"{ratio:.2g}"
