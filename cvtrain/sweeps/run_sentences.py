"""What is said of runs that are compared, beside what every comparison says: what they are, and what to beware of.

Knows runs that are compared already; decides nothing.
"""

from __future__ import annotations

from cvtrain.sweeps.arms import TUNED_KEY
from cvtrain.sweeps.compared_runs import ComparedRuns
from cvtrain.sweeps.image_verdict import ImageComparisonResult, run_of
from cvtrain.sweeps.sentences import percent
from cvtrain.sweeps.verdict import ComparisonResult


def num_test(compared: ComparedRuns) -> int | None:
    """Test images."""
    return (compared.done[0].card.get("test") or {}).get("num_images")


def introduction(compared: ComparedRuns) -> str:
    """What is compared with what."""
    card = compared.done[0].card
    num_arms, num_done = len(compared.arms), len(compared.done)
    keys = list(dict.fromkeys(key for arm in compared.arms for key in arm.settings))
    lost = "" if num_done == len(compared.runs) else f", {num_done} of them done"
    differ = f"they differ in {', '.join(keys)}: {num_arms} arms" if keys else "they differ in their seeds alone"
    classes = f"{len(card.get('class_names') or ())} classes, {num_test(compared):,} test images"
    return f"{len(compared.runs)} runs{lost}; {classes}; {differ}"


def cautions(compared: ComparedRuns, images: ImageComparisonResult | None) -> list[str]:
    """What makes the comparison less than it seems to be."""
    found = []
    keys = {key for arm in compared.arms for key in arm.settings}
    together = [key for key in keys if key != TUNED_KEY and not _follows_from(key, keys)]
    if len(compared.arms) == 2 and len(together) > 1:
        listed = " and ".join(sorted(together))
        found.append(f"what is found is due to {listed} together, not to one of them alone")
    if compared.compares_lrs:
        found.append(
            "the arms are learning rates: choose one by its validation accuracy, because the test accuracy of a"
            " rate that was chosen by test images is too high"
        )
    if images is not None:
        used = [run for arm in images.arms if (run := run_of(arm))]
        if len({run.seed for run in used}) > 1:
            found.append("the models were trained with other seeds: a part of their differences is that of the seeds")
        elif len({run.split_hash for run in used}) > 1:
            found.append("the models were not trained on the same images")
    return found


def _follows_from(key: str, keys: set[str]) -> bool:
    """Whether a key is of an option that is listed itself, as `optimizer.momentum` beside `optimizer`."""
    return "." in key and key.partition(".")[0] in keys


def more_sentences(compared: ComparedRuns, comparison: ComparisonResult) -> list[str]:
    """Of a single arm, how sure its mean is."""
    if len(compared.arms) != 1:
        return []
    test = comparison.arms[0].test
    if test is None or test.low is None or test.high is None:
        return []
    return [
        "the runs differ in their seeds alone, and nothing is compared; the 95 % t interval of their mean is"
        f" [{percent(max(test.low, 0.0))}, {percent(min(test.high, 1.0))}]"
    ]
