"""The page of a sweep: what it says of every kind of sweep, and that nothing in a folder can spoil it."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from cvtrain.errors import CheckpointError
from cvtrain.jobs.ledger import Ledger
from cvtrain.jobs.sweep_report import replace_page, replace_page_if_due
from cvtrain.outputs import RunDir
from cvtrain.pages.sweep_page import write_sweep_page
from cvtrain.report.page import MAX_PAGE_BYTES
from cvtrain.report.words import NOTHING
from cvtrain.sweeps.as_json import comparison_json
from cvtrain.sweeps.verdict import compare
from tests.pages.sweeps_for_tests import JobForTests, grid_of_two, series_of, tables_of, text_of, write_job, write_sweep

HOSTILE = "</script><img src=x onerror=alert(1)>\u202e'\""


@pytest.fixture
def grid(tmp_path):
    """Two optimizers, two seeds each, and a job that failed."""
    failed = JobForTests(
        {"optimizer": "muon", "seed": "0"},
        status="failed",
        error="diverged at step 3",
        exit_code=5,
        card={"best": None},
    )
    return write_sweep(tmp_path / "grid", [*grid_of_two(), failed])


def test_leaderboard_has_a_row_for_each_job_best_validation_first(grid):
    head, *rows = tables_of(write_sweep_page(grid))["leaderboard"]
    assert head[:4] == ["job", "optimizer", "seed", "status"]
    shown = [dict(zip(head, row, strict=True)) for row in rows]
    assert [(row["optimizer"], row["seed"], row["validation"], row["test"]) for row in shown] == [
        ("adam", "1", "81.0 %", "80.0 %"),
        ("adam", "0", "80.0 %", "79.0 %"),
        ("sgd", "1", "71.0 %", "70.0 %"),
        ("sgd", "0", "70.0 %", "69.0 %"),
        ("muon", "0", NOTHING, NOTHING),
    ]
    assert shown[-1]["status"] == "failed"


def test_headline_is_the_best_arm_with_its_interval_and_what_may_be_said(grid):
    text = text_of(write_sweep_page(grid))
    assert (
        "79.5 % [73.1, 85.9] optimizer=adam : mean test accuracy of 2 runs" in text
    )  # t(1) = 12.7; sd = 0.5 / sqrt(2)
    assert "No winner named: each optimizer needs its own optimizer.lr grid" in text
    assert "done 4 failed 1" in text
    assert "test images 200" in text


def test_failed_job_is_told_with_its_error_its_log_and_what_to_type(grid):
    page = write_sweep_page(grid)
    text = text_of(page)
    assert "muon seed=0 failed, exit code 5: diverged at step 3; log" in text
    assert "cvtrain optimizer=muon seed=0" in text
    assert f"cvtrain resume={grid}" in text
    assert 'href="./0000000000000004/log.txt"' in page.read_text()


def test_seeds_are_points_and_lines_are_curves(grid):
    page = write_sweep_page(grid)
    seeds = series_of(page, "Test accuracy of each seed")
    assert sorted(value for value, *_ in seeds["a seed"]) == pytest.approx([0.69, 0.70, 0.79, 0.80])
    assert [value for value, *_ in seeds["mean with 95 % interval"]] == pytest.approx([0.795, 0.695])
    runs = series_of(page, "Validation accuracy of each run")
    assert runs["adam seed=1"] == [[1, 0.405], [2, 0.81]]
    arms = series_of(page, "Validation accuracy of each arm")
    assert arms["adam (n = 2)"] == [[1, 0.4025, 0.4, 0.405], [2, 0.805, 0.8, 0.81]]


def test_learning_rates_are_drawn_where_they_were_swept(tmp_path):
    jobs = [
        JobForTests({"optimizer": name, "optimizer.lr": lr, "seed": "0"}, val)
        for name, lr, val in (("sgd", "0.1", 0.9), ("sgd", "0.01", 0.6), ("adam", "0.1", 0.3), ("adam", "0.01", 0.8))
    ]
    page = write_sweep_page(write_sweep(tmp_path / "s", jobs, swept=("optimizer", "optimizer.lr")))
    lines = series_of(page, "Validation accuracy against the learning rate")
    assert [point[:2] for point in lines["sgd"]] == [[0.01, 0.6], [0.1, 0.9]]
    assert lines["adam"][0][-1] == "n = 1, chosen"
    assert "lr" not in tables_of(write_sweep_page(write_sweep(tmp_path / "t", grid_of_two())))


def test_arms_that_none_surpasses_are_marked(tmp_path):
    figures = {"slow": (0.9, 30.0), "fast": (0.8, 10.0), "poor": (0.7, 20.0), "twin": (0.8, 10.0)}
    jobs = [
        JobForTests({"optimizer": name, "seed": "0"}, test, test, seconds=seconds)
        for name, (test, seconds) in figures.items()
    ]
    page = write_sweep_page(write_sweep(tmp_path / "s", jobs))
    drawn = series_of(page, "Test accuracy against time")
    assert {point[-1] for point in drawn["not surpassed"]} == {"slow", "fast", "twin"}
    assert {point[-1] for point in drawn["others"]} == {"poor"}
    head, *rows = tables_of(page)["cost"]
    assert {row[0]: row[head.index("not surpassed")] for row in rows}["optimizer=poor"] == NOTHING


def test_jobs_that_wait_have_rows_and_the_page_says_that_it_may_change(tmp_path):
    sweep = write_sweep(tmp_path / "s", grid_of_two(), waiting=[{"optimizer": "muon", "seed": "7"}])
    page = write_sweep_page(sweep)
    assert [NOTHING, "muon", "7", "waiting"] in [row[:4] for row in tables_of(page)["leaderboard"]]
    assert "1 of 5 jobs are not finished" in text_of(page)
    write_job(Ledger(sweep), "9" * 16, JobForTests({"optimizer": "muon", "seed": "7"}))  # the leaderboard is old now
    assert [row[3] for row in tables_of(write_sweep_page(sweep))["leaderboard"][1:]] == ["done"] * 5


@pytest.mark.parametrize("content", [b"", b'{"overrides": ', b"[]", b"\xff\xfe", b'{"overrides": 3}'])
def test_damaged_job_leaves_a_row_that_says_so(grid, content):
    (grid / "0000000000000000" / "job.json").write_bytes(content)
    (grid / "0000000000000001" / "run.json").write_text("{")
    (grid / "0000000000000002" / "metrics.csv").write_bytes(b"epoch,step\n1")
    (grid / "0000000000000003" / "metrics.csv").unlink()
    (grid / "comparison.json").write_bytes(content)
    text = text_of(write_sweep_page(grid))
    assert "job.json is damaged" in text
    assert "run.json is gone or damaged" in text


def test_page_is_a_function_of_the_folder_alone(grid, tmp_path):
    page = write_sweep_page(grid)
    text = text_of(page)
    moved = shutil.copytree(grid, tmp_path / "elsewhere" / "grid")
    page.unlink()
    assert text_of(write_sweep_page(moved)).replace("elsewhere/grid", "grid") == text


def test_comparison_of_these_very_jobs_is_read_and_an_older_one_is_not(grid):
    ledger = Ledger(grid)
    results = ledger.results()
    plain = json.loads(comparison_json(compare(results, swept=("optimizer", "seed")), results))
    path = ledger.comparison_path
    path.write_text(json.dumps(plain | {"sentences": ["this was read"]}))
    assert "this was read" in text_of(write_sweep_page(grid))
    write_job(ledger, "9" * 16, JobForTests({"optimizer": "adam", "seed": "5"}))
    assert "this was read" not in text_of(write_sweep_page(grid))


@pytest.mark.parametrize("status", ["failed", "stopped"])
def test_sweep_without_a_result_has_a_page(tmp_path, status):
    jobs = grid_of_two(status=status, error="out of memory", exit_code=6 if status == "failed" else None)
    text = text_of(write_sweep_page(write_sweep(tmp_path / "s", jobs)))
    assert "No result yet" in text
    assert text.count("out of memory") == 4


def test_single_job_has_a_page(tmp_path):
    text = text_of(write_sweep_page(write_sweep(tmp_path / "s", [JobForTests({"optimizer": "sgd"}, 0.75, 0.7)])))
    assert "75.0 %" in text
    assert "validation accuracy, one run; test 70.0 %" in text


def test_folder_without_a_sweep_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="holds no sweep"):
        write_sweep_page(tmp_path)


def test_names_of_others_are_shown_as_text(tmp_path):
    jobs = [
        JobForTests({"optimizer": HOSTILE, "seed": "0"}, status="failed", error=HOSTILE, exit_code=1),
        *grid_of_two(),
    ]
    page = write_sweep_page(write_sweep(tmp_path / "s", jobs, settings=(f"optimizer={HOSTILE}",)))
    assert "<img" not in page.read_text(encoding="utf-8")
    assert "\u202e" not in page.read_text(encoding="utf-8")
    assert "<img src=x onerror=alert(1)>" in text_of(page)


def test_job_leads_to_its_own_page_where_it_has_one(grid):
    (grid / "0000000000000003" / "report.html").write_text("<p>")
    page = write_sweep_page(grid).read_text()
    assert 'href="./0000000000000003/report.html"' in page
    assert 'href="./0000000000000002/report.html"' not in page


SEARCH = {
    "searched": {"optimizer": "sgd,adam", "optimizer.lr": "tag(log, interval(1e-3, 1))"},
    "fixed": {"experiment": "search_lr", "sweep.name": "s"},
    "options": {"num_trials": 3, "sampler": "tpe", "pruner": "median"},
    "best": 2,
    "trials": [
        {"number": 1, "values": {"optimizer": "sgd", "optimizer.lr": 0.1}, "status": "done", "val_accuracy": 0.6,
         "words": ["optimizer=sgd", "optimizer.lr=0.1"], "evaluations": [[3, 0.6]]},
        {"number": 2, "values": {"optimizer": "adam", "optimizer.lr": 0.01}, "status": "done", "val_accuracy": 0.9,
         "words": ["optimizer=adam", "optimizer.lr=0.01"], "evaluations": [[3, 0.9]]},
        {"number": 3, "values": {"optimizer": "sgd", "optimizer.lr": 0.02}, "status": "pruned", "val_accuracy": None,
         "words": ["optimizer=sgd", "optimizer.lr=0.02"], "evaluations": [[3, 0.2], [6, 0.3]]},
        {"number": 4, "values": {"optimizer": "sgd", "optimizer.lr": 0.5}, "status": "done", "val_accuracy": 0.7,
         "words": ["optimizer=sgd", "optimizer.lr=0.5"], "evaluations": [[3, 0.7]]},
    ],
}  # fmt: skip


@pytest.fixture
def search(tmp_path):
    jobs = [
        JobForTests({"optimizer": "sgd", "optimizer.lr": "0.1"}, 0.6, 0.58),
        JobForTests({"optimizer": "adam", "optimizer.lr": "0.01"}, 0.9, 0.88),
        JobForTests({"optimizer": "sgd", "optimizer.lr": "0.02"}, status="pruned", exit_code=0),
    ]
    sweep = write_sweep(tmp_path / "search", jobs, swept=("optimizer", "optimizer.lr"))
    (sweep / "search.json").write_text(json.dumps(SEARCH))
    return sweep


def test_search_shows_its_trials_the_best_so_far_and_each_value(search):
    page = write_sweep_page(search)
    trials = series_of(page, "Trials in their order")
    assert [point[:2] for point in trials["done"]] == [[1, 0.6], [2, 0.9], [4, 0.7]]
    assert [point[:2] for point in trials["pruned"]] == [[3, 0.3]]
    assert trials["best so far"] == [[1, 0.6], [2, 0.6], [2, 0.9], [3, 0.9], [4, 0.9], [4, 0.9]]
    assert series_of(page, "Validation accuracy against optimizer.lr")["done"] == [[0.1, 0.6, None, None, "trial 1"],
        [0.01, 0.9, None, None, "trial 2"], [0.5, 0.7, None, None, "trial 4"]]  # fmt: skip
    assert series_of(page, "Validation accuracy against optimizer")["pruned"][0][0] == 0.3


def test_best_of_a_search_is_no_arm_and_said_to_be_lucky(search):
    text = text_of(write_sweep_page(search))
    assert "90.0 %" in text
    assert "adam lr=0.01 : validation accuracy, the best of 2 jobs; test 88.0 %" in text
    assert "4 trials: 3 done, 1 pruned" in text
    assert "part of it is luck" in text
    assert "cvtrain experiment=search_lr optimizer=adam optimizer.lr=0.01 Copy" in text
    assert "no winner" not in text.lower()


@pytest.mark.parametrize("content", [{"trials": 3}, {**SEARCH, "trials": [{"number": 1}]}, {**SEARCH, "best": "x"}])
def test_damaged_search_leaves_the_rest_of_the_page(search, content):
    (search / "search.json").write_text(json.dumps(content))
    assert "90.0 %" in text_of(write_sweep_page(search))


def test_large_sweep_stays_small_and_says_what_it_leaves_out(tmp_path):
    jobs = [JobForTests({"optimizer": f"kind-{i}", "seed": "0"}, 0.5 + i / 1000, 0.5) for i in range(101)]
    page = write_sweep_page(write_sweep(tmp_path / "s", jobs))
    text = text_of(page)
    assert page.stat().st_size < MAX_PAGE_BYTES / 3
    assert "Of 101 runs the best 30 and the worst 5 by validation accuracy are shown." in text
    assert len(series_of(page, "Validation accuracy of each run")) == 35
    assert "More than 100 arms: comparison.json" in text


def test_page_is_replaced_only_when_it_is_due(grid):
    assert replace_page_if_due(grid, num_jobs=5) is None
    page = RunDir(grid).report_path
    page.write_text("as it was")
    assert replace_page_if_due(grid, num_jobs=5) is None
    assert page.read_text() == "as it was"
    os.utime(page, (1e9, 1e9))
    assert replace_page_if_due(grid, num_jobs=5) is None
    assert "Leaderboard" in page.read_text()


def test_page_that_cannot_be_written_costs_a_line(grid):
    page = RunDir(grid).report_path
    page.mkdir()
    (page / "in the way").touch()
    trouble = replace_page(grid)
    assert trouble.startswith("the report of the sweep could not be written: ")
    assert "\n" not in trouble


def test_page_is_made_without_torch(grid):
    code = (
        "import sys; from pathlib import Path; from cvtrain.pages.sweep_page import write_sweep_page\n"
        "write_sweep_page(Path(sys.argv[1])); assert not {'torch', 'matplotlib', 'hydra'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(grid)], check=True, timeout=120)
