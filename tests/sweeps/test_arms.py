from dataclasses import replace

import pytest

from cvtrain.sweeps.arms import CostResult, arms_of
from cvtrain.sweeps.leaderboard import JobResult


def job(*, val=0.5, test=0.5, status="done", split="s", loss=1.0, **words):
    overrides = {key.replace("__", "."): str(word) for key, word in words.items()}
    is_done = status == "done"
    return JobResult(
        overrides=overrides,
        run_dir=None,
        status="failed" if status == "diverged" else status,
        stop_reason=status if status == "diverged" else None,
        seed=int(overrides["seed"]) if "seed" in overrides else 0,
        split_hash=split,
        val_accuracy=val if is_done else None,
        val_loss=loss if is_done else None,
        test_accuracy=test if is_done else None,
    )


def test_swept_keys_are_parted_into_arms_seeds_and_learning_rates():
    jobs = [
        job(data="digits", model=m, optimizer__weight_decay=w, optimizer__lr=lr, seed=s, data__seed=d)
        for m in ("mlp", "lenet")
        for w in (0, 0.1)
        for lr in (0.1, 0.01)
        for s in (0, 1)
        for d in (5, 6)
    ]
    arms = arms_of(jobs)
    assert [arm.name for arm in arms] == [
        f"model={m} optimizer.weight_decay={w}" for m in ("mlp", "lenet") for w in (0, 0.1)
    ]
    assert all(arm.lrs == [0.01, 0.1] for arm in arms)
    assert all(len(cell.done) == 4 for arm in arms for cell in arm.cells)


def test_a_sweep_over_seeds_alone_is_one_arm():
    (arm,) = arms_of([job(seed=s, name=f"run{s}") for s in range(3)])
    assert arm.name == "all runs"
    assert len(arm.cells) == 1
    assert len(arm.chosen.done) == 3


def test_one_number_in_several_spellings_is_one_learning_rate():
    (arm,) = arms_of([job(optimizer__lr=lr, seed=s) for s, lr in enumerate(("0.001", "1e-3", "0.0010", "0.1"))])
    assert arm.lrs == [0.001, 0.1]
    assert [len(cell.jobs) for cell in arm.cells] == [3, 1]


def test_learning_rate_is_chosen_by_validation_and_never_by_test():
    jobs = [
        job(optimizer__lr=lr, seed=s, val=val + s * 0.1, test=test)
        for s in (0, 1)
        for lr, val, test in ((0.1, 0.5, 0.9), (0.01, 0.6, 0.1), (0.001, 0.55, 1.0))
    ]
    assert arms_of(jobs)[0].chosen.lr == 0.01


def test_equal_validation_accuracies_are_decided_by_validation_loss():
    jobs = [job(optimizer__lr=lr, loss=loss) for lr, loss in ((0.1, 2.0), (0.01, 1.0), (0.001, 3.0))]
    assert arms_of(jobs)[0].chosen.lr == 0.01


@pytest.mark.parametrize("status", ["failed", "diverged", "stopped", "waiting"])
def test_rate_that_lost_a_job_is_chosen_only_where_all_did(status):
    jobs = [job(optimizer__lr=0.1, seed=s, val=0.9, status="done" if s else status) for s in range(3)]
    others = [job(optimizer__lr=0.01, seed=s, val=0.5) for s in range(3)]
    assert arms_of(jobs + others)[0].chosen.lr == 0.01
    also_lost = [*others[1:], job(optimizer__lr=0.01, seed=0, status="failed")]
    assert arms_of(jobs + also_lost)[0].chosen.lr == 0.1


def test_troubles_are_counted_by_kind():
    states = ("done", "diverged", "diverged", "failed", "stopped", "running")
    (arm,) = arms_of([job(seed=s, status=status) for s, status in enumerate(states)])
    assert arm.cells[0].troubles() == "2 of 6 jobs diverged, 1 of 6 jobs failed, 2 of 6 jobs not finished"
    assert not arm.cells[0].is_whole


def test_nothing_is_chosen_among_rates_without_validation():
    (arm,) = arms_of([job(optimizer__lr=lr, val=None) for lr in (0.1, 0.01)])
    assert arm.chosen is None
    (single,) = arms_of([job(seed=s, val=None) for s in range(2)])
    assert len(single.chosen.done) == 2


def test_job_that_was_tried_again_counts_once():
    jobs = [job(seed=0, status="failed"), job(seed=1), job(seed=0, test=0.25, name="again")]
    (arm,) = arms_of(jobs)
    assert arm.cells[0].is_whole
    assert sorted(arm.cells[0].test_accuracies.values()) == [0.25, 0.5]


@pytest.mark.parametrize(("best", "is_edge"), [(1, True), (0.1, False), (0.01, True)])
def test_best_rate_at_the_end_of_its_grid_is_noticed(best, is_edge):
    (arm,) = arms_of([job(optimizer__lr=lr, val=0.9 if lr == best else 0.5) for lr in (0.1, 1, 0.01)])
    assert arm.is_chosen_at_edge == is_edge


def test_rate_below_one_that_diverged_is_not_at_the_end():
    jobs = [job(optimizer__lr=lr, val=lr, status="diverged" if lr == 1 else "done") for lr in (0.01, 0.1, 1)]
    (arm,) = arms_of(jobs)
    assert arm.chosen.lr == 0.1
    assert not arm.is_chosen_at_edge


def test_runs_of_other_splits_have_other_keys():
    a, b = arms_of([job(model=m, seed=0, split=m) for m in ("a", "b")])
    assert not set(a.chosen.done) & set(b.chosen.done)


def test_learning_rates_make_arms_where_they_are_not_tuned():
    jobs = [job(optimizer="sgd", optimizer__lr=lr, seed=s) for lr in (0.1, 0.01) for s in range(2)]
    arms = arms_of(jobs, lr_is_tuned=False)
    assert [arm.name for arm in arms] == ["optimizer.lr=0.1", "optimizer.lr=0.01"]
    assert [arm.lrs for arm in arms] == [[0.1], [0.01]]


def test_setting_that_an_arm_lacks_is_its_default_or_left_out():
    jobs = [job(optimizer="sgd", optimizer__momentum="0.5"), job(optimizer="adam")]
    assert [arm.name for arm in arms_of(jobs)][1] == "optimizer=adam optimizer.momentum=default"
    assert [arm.name for arm in arms_of(jobs, absent=None)][1] == "optimizer=adam"


def test_cost_is_the_mean_of_the_jobs_that_are_done():
    known = {"seconds": 4.0, "images_per_second": 100.0, "num_parameters": 7, "device": "cpu"}
    jobs = [replace(job(seed=0), **known), replace(job(seed=1), **(known | {"seconds": 6.0}))]
    jobs += [job(seed=2), replace(job(seed=3, status="failed"), **(known | {"seconds": 900.0, "device": "cuda"}))]
    (arm,) = arms_of(jobs)
    assert arm.cells[0].cost == CostResult(5.0, 100.0, 7.0, ("cpu",))
    assert arms_of([job(seed=0)])[0].cells[0].cost == CostResult(None, None, None, ())


def test_pruned_jobs_are_counted_apart():
    (arm,) = arms_of([job(seed=s, status=status) for s, status in enumerate(("done", "pruned", "failed", "pruned"))])
    assert arm.cells[0].troubles() == "1 of 4 jobs failed, 2 of 4 jobs pruned"
    assert (arm.cells[0].num_pruned, len(arm.cells[0].done)) == (2, 1)
