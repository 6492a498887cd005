import json
from pathlib import Path

import pytest

from cvtrain.sweeps.as_json import comparison_json
from cvtrain.sweeps.leaderboard import JobResult
from cvtrain.sweeps.verdict import compare


def jobs(num_seeds=8, lrs=(0.1, 0.01), **means):
    found = [
        JobResult(
            overrides={"model": name, "optimizer.lr": str(lr), "seed": str(seed)},
            run_dir=Path(f"runs/{name}-{lr}-{seed}"),
            status="done",
            stop_reason="finished",
            seed=seed,
            split_hash=f"s{seed}",
            val_accuracy=mean + seed / 1000 - (lr == 0.1) / 10,
            test_accuracy=mean + seed / 1000,
            seconds=2.0 + seed,
            images_per_second=100.0,
            num_parameters=10,
            device="cpu",
        )
        for name, mean in means.items()
        for lr in lrs
        for seed in range(num_seeds)
    ]
    lost = JobResult(
        {"model": "lost", "optimizer.lr": "0.1", "seed": "0"}, None, "failed", seed=0, error="out of memory"
    )
    pruned = JobResult({"model": "lost", "optimizer.lr": "0.01", "seed": "0"}, None, "pruned", seed=0)
    return [*found, lost, pruned]


def read(results, **given):
    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    return json.loads(comparison_json(compare(results), results, **given), parse_constant=refuse)


def test_every_figure_of_the_comparison_is_there():
    found = read(jobs(a=0.9, b=0.8))
    assert (found["kind"], found["winner"]) == ("runs", "model=a")
    assert found["jobs"] == {"done": 32, "failed": 1, "pruned": 1}
    best, worse, lost = found["arms"]
    assert [arm["verdict"] for arm in found["arms"]] == ["best", "worse", "no_result"]
    assert (best["lr"], best["settings"], best["is_lr_at_edge"]) == (0.01, {"model": "a"}, True)
    assert best["test"]["mean"] == pytest.approx(0.9035)
    assert best["cost"] == {"seconds": 5.5, "images_per_second": 100, "num_parameters": 10, "devices": ["cpu"]}
    assert (best["below_the_best"], best["time_share"], worse["time_share"]) == (None, None, 1.0)
    assert worse["below_the_best"]["difference"]["mean"] == pytest.approx(0.1)
    assert worse["holm_p_value"] == 2 / 2**8
    assert [(cell["lr"], cell["is_chosen"], len(cell["runs"])) for cell in best["cells"]] == [
        (0.01, True, 8),
        (0.1, False, 8),
    ]
    run = best["cells"][0]["runs"][3]
    assert (run["seed"], run["run"], run["test_accuracy"]) == (3, "runs/a-0.01-3", pytest.approx(0.903))
    assert run["words"] == {"model": "a", "optimizer.lr": "0.01", "seed": "3"}
    assert [cell["runs"][0]["error"] for cell in lost["cells"]] == [None, "out of memory"]
    assert [(pair["first"], pair["second"], pair["num_pairs"]) for pair in found["pairs"]] == [
        ("model=a", "model=b", 8)
    ]
    assert found["sentences"] == list(compare(jobs(a=0.9, b=0.8)).sentences)
    assert found["images"] is None


def test_what_is_no_number_becomes_null():
    results = jobs(a=0.9)
    odd = [JobResult(**{**results[0].__dict__, "val_loss": float("nan"), "test_loss": float("inf")}), *results[1:]]
    run = read(odd)["arms"][0]["cells"][1]["runs"][0]
    assert (run["val_loss"], run["test_loss"]) == (None, None)


def test_callers_keys_stand_beside_the_figures():
    assert read(jobs(a=0.9), about={"data": "digits"})["data"] == "digits"


def test_sweep_without_jobs_is_an_empty_comparison():
    found = read([])
    assert (found["arms"], found["pairs"], found["winner"], found["jobs"]) == ([], [], None, {})
