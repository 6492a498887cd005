import csv
import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest

from cvtrain.config import load_config
from cvtrain.errors import OutputError
from cvtrain.outputs import RunDir
from cvtrain.sweeps.leaderboard import ENDINGS, FIGURES, Job, read_jobs, rows, swept_keys, write_csv
from cvtrain.sweeps.verdict import compare

DONE = {
    "status": "done",
    "exit_code": 0,
    "error": None,
    "stop_reason": "finished",
    "task": "train",
    "data": "digits",
    "model": "lenet",
    "seed": 3,
    "split_hash": "4105be32a99b",
    "num_parameters": 61706,
    "steps": 4,
    "epochs": 1.3333,
    "best": {"epoch": 1.3333, "step": 4, "val_loss": 2.25, "val_accuracy": 0.25, "val_cross_entropy": 2.2},
    "seconds": 0.087,
    "last": {"epoch": 2.0, "step": 6, "val_loss": 9.0, "val_accuracy": 0.125},
    "images_per_second": 1014.0,
    "test": {"loss": 2.125, "accuracy": 0.5, "num_images": 20},
}
DIVERGED = {
    "status": "failed",
    "exit_code": 5,
    "error": "diverged: the training loss is not a finite number at step 2",
    "stop_reason": "diverged",
    "seed": 3,
    "split_hash": "4105be32a99b",
    "num_parameters": 61706,
}


def job_in(folder, card, *, exit_code=0, **overrides):
    folder.mkdir(parents=True)
    if card is not None:
        RunDir(folder).write_card(card)
    return Job({key.replace("__", "."): word for key, word in overrides.items()}, folder, exit_code)


def test_figures_are_those_of_the_best_weights(tmp_path):
    (result,) = read_jobs([job_in(tmp_path / "a", DONE, optimizer="sgd")])
    assert result.is_done
    assert [getattr(result, name) for name in FIGURES] == [1.3333, 0.25, 2.25, 2.2, 0.5, 2.125, 0.087, 1014.0, 61706]
    assert (result.seed, result.split_hash, result.status, result.stop_reason) == (
        3,
        "4105be32a99b",
        "done",
        "finished",
    )


def test_cards_without_some_figures_leave_cells_empty(tmp_path):
    card = DONE | {"best": {"epoch": 1, "val_loss": 2.0, "val_accuracy": 0.5}, "seconds": None}
    results = read_jobs([job_in(tmp_path / "a", card), job_in(tmp_path / "b", DONE | {"best": None})])
    header, (first, second) = rows(results)
    assert dict(zip(header, first, strict=True))["val_cross_entropy"] == ""
    assert dict(zip(header, first, strict=True))["seconds"] == ""
    assert dict(zip(header, second, strict=True))["val_accuracy"] == ""


@pytest.mark.parametrize(
    ("card", "exit_code", "status"),
    [
        (DONE, 0, "done"),
        (DIVERGED, 5, "failed"),
        ({"status": "stopped", "stop_reason": "signal"}, 143, "stopped"),
        ({"status": "running"}, None, "running"),
        ({"status": "running"}, 137, "failed"),  # killed: it could not say so itself
        (None, None, "waiting"),
        (None, 3, "failed"),
        (None, 0, "failed"),
    ],
)
def test_status_is_true_even_where_the_card_is_not(tmp_path, card, exit_code, status):
    (result,) = read_jobs([job_in(tmp_path / "a", card, exit_code=exit_code)])
    assert result.status == status
    assert result.is_done == (status == "done")


@pytest.mark.parametrize("status", ["failed", "stopped", "pruned", "running", "waiting"])
def test_what_the_sweep_knows_goes_before_the_card(tmp_path, status):
    job = job_in(tmp_path / "a", DONE | {"error": "old"}, exit_code=137)
    (result,) = read_jobs([replace(job, status=status, error="killed by signal 9")])
    assert (result.status, result.error, result.is_done) == (status, "killed by signal 9", False)
    (own,) = read_jobs([replace(job, run_dir=job_in(tmp_path / "b", DIVERGED).run_dir)])
    assert (own.status, own.error) == ("failed", DIVERGED["error"])


def test_why_jobs_ended_stands_before_their_folder(tmp_path):
    job = job_in(tmp_path / "a", DIVERGED | {"error": "=cmd()\n  second \x1b[31mline"}, exit_code=5)
    path = tmp_path / "leaderboard.csv"
    write_csv(path, read_jobs([job, Job({"model": "b"}, None, None)]))
    header, first, second = csv.reader(path.read_text(encoding="utf-8").splitlines())
    assert header[-3:] == ["stop_reason", "error", "run"]
    assert first[-3:] == ["diverged", "'=cmd() second \\x1b[31mline", str(tmp_path / "a")]
    assert second[-3:] == ["", "", ""]


def test_pruned_jobs_are_neither_failures_nor_results(tmp_path):
    jobs = [job_in(tmp_path / str(seed), DONE | {"seed": seed}, seed=str(seed)) for seed in range(2)]
    jobs.append(replace(job_in(tmp_path / "2", DONE | {"seed": 2}, seed="2"), status="pruned"))
    result = compare(read_jobs(jobs))
    assert result.arms[0].test.num_values == 2
    assert "all runs: 1 of 3 jobs pruned: the search ended them early, and they are not compared" in result.sentences
    assert "failed" not in " ".join(result.sentences)


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[1]", b"\xff\xfe", b'{"status": "done", "test": 3, "best": [], "seed": "x"}']
)
def test_damaged_cards_leave_a_job_without_figures(tmp_path, text):
    job = job_in(tmp_path / "a", None, seed="7")
    (tmp_path / "a" / "run.json").write_bytes(text)
    (result,) = read_jobs([job])
    assert not result.is_done
    assert result.seed == 7
    assert result.test_accuracy is None


def test_jobs_that_left_no_folder_keep_their_words():
    (result,) = read_jobs([Job({"++optimizer.lr": "0.1", "seed": "4"}, None, 2)])
    assert (result.overrides["optimizer.lr"], result.seed, result.status) == ("0.1", 4, "failed")


def test_swept_keys_are_those_that_differ(tmp_path):
    results = read_jobs([Job({"data": "digits", "model": m, "seed": s}, None, None) for m in "ab" for s in "01"])
    assert swept_keys(results) == ["model", "seed"]
    assert rows(results)[0] == ("model", "seed", "status", *FIGURES, *ENDINGS, "run")
    assert rows(results, swept=["data", "seed"])[0][:2] == ("data", "seed")


def test_rows_are_ordered_by_validation_and_never_by_test(tmp_path):
    def card(val, test):
        return DONE | {"best": DONE["best"] | {"val_accuracy": val}, "test": DONE["test"] | {"accuracy": test}}

    jobs = [
        job_in(tmp_path / "diverged", DIVERGED, model="diverged", exit_code=5),
        job_in(tmp_path / "low", card(0.5, 0.9), model="low"),
        job_in(tmp_path / "unknown", DONE | {"best": None}, model="unknown"),
        job_in(tmp_path / "high", card(0.7, 0.2), model="high"),
    ]
    assert [row[0] for row in rows(read_jobs(jobs))[1]] == ["high", "low", "unknown", "diverged"]


def test_csv_holds_every_job_and_no_formula(tmp_path):
    job = job_in(tmp_path / "a", DONE | {"test": {"accuracy": 0.5, "loss": -1.25}}, model="=HYPERLINK(1)", x="-0.5")
    path = tmp_path / "leaderboard.csv"
    write_csv(path, read_jobs([job, Job({"model": "b", "x": "-A1"}, None, 3)]))
    header, first, second = csv.reader(path.read_text(encoding="utf-8").splitlines())
    first, second = dict(zip(header, first, strict=True)), dict(zip(header, second, strict=True))
    assert (first["model"], first["x"], first["test_loss"]) == ("'=HYPERLINK(1)", "-0.5", "-1.25")
    assert (first["seed"], first["num_parameters"], first["run"]) == ("3", "61706", str(tmp_path / "a"))
    assert (second["x"], second["status"], second["test_accuracy"], second["run"]) == ("'-A1", "failed", "", "")


def test_secrets_among_the_words_stay_out(tmp_path):
    path = tmp_path / "leaderboard.csv"
    words = [{"tracker.api_key": key, "data.mirror": f"https://me:{key}@host/x"} for key in ("hunter2", "hunter3")]
    write_csv(path, read_jobs([Job(each, None, None) for each in words]), swept=["tracker.api_key", "data.mirror"])
    assert "hunter" not in path.read_text(encoding="utf-8")
    assert "***" in path.read_text(encoding="utf-8")


def test_csv_is_replaced_and_nothing_else_is_left(tmp_path):
    path = tmp_path / "leaderboard.csv"
    write_csv(path, read_jobs([Job({"seed": "0"}, None, None)]))
    write_csv(path, read_jobs([Job({"seed": str(seed)}, None, None) for seed in range(2)]))
    assert len(path.read_text(encoding="utf-8").splitlines()) == 3
    assert [p.name for p in tmp_path.iterdir()] == ["leaderboard.csv"]
    with pytest.raises(OutputError, match="could not be written"):
        write_csv(tmp_path / "missing" / "leaderboard.csv", [])


@pytest.mark.long
def test_real_runs_are_read_and_compared(tmp_path):
    # The card above is written by hand: this one makes sure that training writes the same words.
    words = ["--multirun", "experiment=smoke", "optimizer.lr=0.1,1e9", "seed=0,1", "output_dir=out"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "cvtrain", *words]
    subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, timeout=120, check=False)
    jobs = []
    for path in sorted(tmp_path.glob("out/**/run.json")):
        config, card = load_config(path.parent), json.loads(path.read_text(encoding="utf-8"))
        overrides = {"optimizer.lr": str(config["optimizer"]["lr"]), "seed": str(config["seed"])}
        jobs.append(Job(overrides, path.parent, card["exit_code"]))
    results = read_jobs(jobs)
    assert sorted(result.status for result in results) == ["done", "done", "failed", "failed"]
    header, body = rows(results)
    first, last = dict(zip(header, body[0], strict=True)), dict(zip(header, body[-1], strict=True))
    assert all(first[name] != "" for name in FIGURES)
    assert (last["status"], last["optimizer.lr"], last["test_accuracy"]) == ("failed", "1000000000.0", "")
    result = compare(results)
    assert result.arms[0].arm.chosen.lr == 0.1
    assert "all runs: optimizer.lr=1e+09: 2 of 2 jobs diverged, so it was not chosen" in result.sentences
