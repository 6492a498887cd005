"""Sweeps as real processes: jobs that fail in every way, killed drivers, two drivers, jobs at the same time."""

import os
import random
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from sweeps_for_tests import leaderboard, no_process_below, records, wait_until, with_troubled_model

# A model that behaves as its case says once it is given numbers; on trial, without numbers, all cases are well.
TROUBLE = """
import ctypes, os, pathlib, signal, sys, time
import torch
from torch import nn

WAYS = {2: "exception", 5: "exit", 8: "kill", 11: "segfault", 14: "memory", 17: "diverge"}


class Troubled(nn.Module):
    def __init__(self, num_classes, in_channels, image_size, case, seconds):
        super().__init__()
        self.layer = nn.Linear(in_channels * image_size**2, num_classes)
        self.way = None if pathlib.Path("mended").exists() else WAYS.get(case)
        self.case, self.seconds = case, seconds

    def forward(self, images):
        logits = self.layer(images.flatten(1))
        if logits.device.type == "meta":
            return logits
        if self.training:
            time.sleep(self.seconds)
            with open("steps.txt", "a") as file:
                file.write(f"{self.case}\\n")
        if self.way == "exception":
            raise KeyError("no such thing")
        if self.way == "exit":
            sys.exit(3)
        if self.way == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.way == "segfault":
            ctypes.string_at(0)
        if self.way == "memory":
            torch.empty(2**60)
        return logits * float("nan") if self.way == "diverge" else logits
"""
OPTIONS = "case: 0\nseconds: 0.0\n"
WORDS = [
    *("--multirun", "--config-dir", "own", "plugins=[trouble]", "model=troubled", "sweep.name=s", "output_dir=out"),
    *("data=synthetic", "data.num_classes=2", "data.per_class=12", "data.image_size=8", "trainer.precision=fp32"),
    *("trainer.steps=6", "trainer.batch_size=4", "trainer.evaluate_every=2", "trainer.checkpoint.every_minutes=0.0001"),
]


AGAIN = ["resume=out/sweeps/s", "plugins=[trouble]"]
COMMAND_AGAIN = shlex.join(["cvtrain", *AGAIN])


@pytest.fixture
def home(tmp_path):
    """A folder with the troubled model."""
    return with_troubled_model(tmp_path, source=TROUBLE, options=OPTIONS)


def command(home, *words):
    path = os.pathsep.join([str(home), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-m", "cvtrain", *words], cwd=home, env=environment, **pipes)


def run(home, *words, timeout=120):
    process = command(home, *words)
    out, err = process.communicate(timeout=timeout)
    return process.returncode, out, err


def by_case(home):
    """The records of the jobs by what they differ in."""
    return {record["overrides"].get("model.case"): record for record in records(home)}


def steps_by_case(home):
    path = home / "steps.txt"
    return Counter(int(line) for line in path.read_text().split()) if path.exists() else Counter()


def test_sweep_survives_six_ways_to_fail_and_runs_exactly_those_again(home):
    words = [*WORDS, "model.case=range(0,20)", "sweep.jobs=2"]
    code, out, err = run(home, *words)
    assert code == 1
    status = {int(row["model.case"]): row["status"] for row in leaderboard(home)}
    assert len(status) == 20
    assert {case for case, word in status.items() if word == "failed"} == {2, 5, 8, 11, 14, 17}
    assert set(Counter(status.values())) == {"done", "failed"}
    errors = {int(row["model.case"]): row["error"] for row in leaderboard(home) if row["status"] == "failed"}
    for case, words_of_error in {
        2: "KeyError",
        5: "sys.exit(3)",
        8: "signal 9 (SIGKILL)",
        11: "signal 11 (SIGSEGV)",
        14: "out of memory",
        17: "diverged",
    }.items():
        assert words_of_error in errors[case], errors
        (line,) = [each for each in out.splitlines() if f"model.case={case}: failed: " in each]
        log = Path(line.rpartition("log ")[2])
        assert (home / log).is_file()
    assert "14 of 20 jobs done" in out
    assert "6 jobs are not done:" in err
    assert len(err.splitlines()) <= 6
    assert "Traceback" not in out + err
    steps = steps_by_case(home)

    (home / "mended").touch()
    code, out, err = run(home, *words)
    assert code == 0, err
    assert "14 of them done already" in out
    again = steps_by_case(home) - steps
    assert set(again) <= {2, 5, 8, 11, 14, 17}
    assert {record["attempts"] for case, record in by_case(home).items() if int(case) in again} == {2}
    assert {row["status"] for row in leaderboard(home)} == {"done"}

    before = by_case(home)
    code, out, _ = run(home, *words)
    assert code == 0
    assert "20 of them done already" in out
    assert steps_by_case(home) == steps + again
    assert by_case(home) == before  # nobody has even looked whether something was left to do


@pytest.mark.long
def test_failed_jobs_are_left_when_asked_and_fail_fast_starts_nothing_more(home):
    words = [*WORDS, "model.case=2,5,0,1,3", "sweep.jobs=1"]
    code, out, _ = run(home, *words, "sweep.fail_fast=true")
    assert code == 1
    assert Counter(row["status"] for row in leaderboard(home)) == {"failed": 1, "waiting": 4}
    assert "sweep.fail_fast: nothing more is started" in out
    (home / "mended").touch()
    code, out, err = run(home, *words, "sweep.retry_failed=false")
    assert code == 1
    assert Counter(row["status"] for row in leaderboard(home)) == {"failed": 1, "done": 4}
    assert "KeyError" in err
    code, out, err = run(home, *AGAIN)  # as it was typed, so nothing is tried
    assert code == 1
    assert "5 jobs, 4 of them done already, 1 failed before and are left so; writes to" in out
    assert f"once more: {COMMAND_AGAIN} sweep.retry_failed=true" in err


@pytest.mark.long
def test_job_that_takes_too_long_fails_alone_and_can_be_continued(home):
    words = [*WORDS, "model.case=0,1", "model.seconds=0,1.5", "sweep.jobs=2"]
    code, _, _ = run(home, *words, "sweep.job_timeout=0.07")
    assert code == 1
    rows = leaderboard(home)
    assert Counter(row["status"] for row in rows) == {"done": 2, "failed": 2}
    assert {row["error"][:9] for row in rows if row["status"] == "failed"} == {"timed out"}
    code, _, err = run(home, *words)
    assert code == 0, err
    assert max(steps_by_case(home).values()) <= 6 + 6 + 1  # those that were saved are not taken again


@pytest.mark.long
def test_killed_drivers_lose_nothing_and_repeat_no_finished_job(home, end_of):
    words = [*WORDS, "model.case=0,1,3,4,6,7", "model.seconds=0.05", "sweep.jobs=2"]
    generator = random.Random(0)
    done_before = {}
    for _ in range(4):
        process = command(home, *words)
        time.sleep(generator.uniform(1.5, 4.5))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        for case, record in by_case(home).items():
            if case in done_before:
                assert record == done_before[case]
            if record["status"] == "done":
                done_before[case] = record
    code, _, err = run(home, *words)
    assert code == 0, err
    assert {row["status"] for row in leaderboard(home)} == {"done"}
    wait_until(lambda: no_process_below(home), seconds=10)
    ends = {path.parent.name: end_of(path.parent) for path in home.glob("out/sweeps/s/*/job.json")}
    (home / "fresh").mkdir()
    for name in ("own", "trouble.py"):
        (home / "fresh" / name).symlink_to(home / name)
    assert run(home / "fresh", *words)[0] == 0
    for path in (home / "fresh").glob("out/sweeps/s/*/job.json"):
        assert end_of(path.parent) == ends[path.parent.name]


@pytest.mark.long
def test_stopped_driver_saves_its_jobs_and_says_how_to_go_on(home):
    words = [*WORDS, "model.case=0,1,3", "model.seconds=0.4", "sweep.jobs=2"]
    for number, num_steps in ((signal.SIGINT, 3), (signal.SIGTERM, 7)):
        process = command(home, *words)
        try:
            wait_until(lambda least=num_steps: sum(steps_by_case(home).values()) >= least)
            process.send_signal(number)
        finally:
            _, err = process.communicate(timeout=60)
        assert process.returncode == 128 + number
        assert f"stopped by signal {int(number)}" in err
        assert f"continue with: {COMMAND_AGAIN}" in err
        assert no_process_below(home)
        assert "stopped" in {record["status"] for record in records(home)} <= {"stopped", "done"}
        words = [*AGAIN, "sweep.jobs=2"]
    code, out, err = run(home, *words)
    assert code == 0, err
    assert "3 of 3 jobs done" in out
    assert steps_by_case(home) == {0: 6, 1: 6, 3: 6}  # not one step twice


@pytest.mark.long
def test_two_drivers_share_the_work_and_both_tell_of_all(home):
    words = [*WORDS, "model.case=0,1,3,4,6,7,9,10", "model.seconds=0.15", "sweep.jobs=1"]
    first, second = command(home, *words), command(home, *words)
    (out, err), (other_out, other_err) = first.communicate(timeout=100), second.communicate(timeout=100)
    assert (first.returncode, second.returncode) == (0, 0), err + other_err
    assert steps_by_case(home) == dict.fromkeys((0, 1, 3, 4, 6, 7, 9, 10), 6)
    assert "8 of 8 jobs done" in out
    assert "8 of 8 jobs done" in other_out
    assert {record["attempts"] for record in records(home)} == {1}


@pytest.mark.long
def test_added_choices_run_what_is_new_and_another_grid_is_told(home):
    code, out, _ = run(home, *WORDS, "model.case=0,1", "trainer.batch_size=64")
    assert code == 0
    first, second = [line for line in out.splitlines() if "are fewer than trainer.batch_size=64" in line]
    assert ": warning: " in first  # once as it comes, and once for all jobs that have it
    assert second.startswith("warning of 2 jobs: ")
    code, out, _ = run(home, *WORDS, "model.case=3,1", "optimizer.lr=0.05,5e-2", "trainer.batch_size=64")
    assert code == 0
    assert "2 jobs, 1 of them done already" in out
    assert "holds a job of another grid, such as model.case=0" in out
    assert steps_by_case(home) == {0: 6, 1: 6, 3: 6}
    assert len(leaderboard(home)) == 3


@pytest.mark.long
def test_leaderboard_that_cannot_be_written_hides_no_figures(home):
    assert run(home, *WORDS, "model.case=0,1")[0] == 0
    path = home / "out" / "sweeps" / "s" / "leaderboard.csv"
    path.unlink()
    path.mkdir()
    code, out, err = run(home, *AGAIN)
    assert code == 4
    assert "2 of 2 jobs done" in out
    assert "test accuracy" in out
    assert err.splitlines() == [
        "error: out/sweeps/s/leaderboard.csv could not be written: Is a directory",
        f"  once it can: {COMMAND_AGAIN}",
    ]


def test_folder_that_cannot_be_written_is_told_before_any_job(home):
    (home / "out").write_text("a file")
    code, _, err = run(home, *WORDS, "model.case=0,1")
    assert code == 4
    assert err.startswith("error: cannot write to the output folder out/sweeps")
    assert not steps_by_case(home)
