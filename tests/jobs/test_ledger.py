"""The folder of a sweep: who is at work, what is written, what other commands see of it."""

import csv
import os
import signal
import subprocess
import sys
from dataclasses import replace

import pytest

from cvtrain.errors import CheckpointError, OutputError
from cvtrain.jobs.ledger import Command, Ledger
from cvtrain.record import versions
from cvtrain.sweeps.job_folder import JobFolder, JobRecord
from cvtrain.sweeps.stored_sweep import is_sweep

RUNNING = JobRecord({"seed": "1"}, task="summary", status="running", attempts=1)


@pytest.fixture
def ledger(tmp_path):
    return Ledger.open(tmp_path / "sweeps", name="mine")


def begun(ledger, name, record=RUNNING):
    folder = ledger.folder(name)
    folder.path.mkdir()
    folder.write(record)
    return folder


def test_named_sweep_is_opened_again_and_unnamed_ones_are_new(tmp_path):
    assert Ledger.open(tmp_path, name="mine").path == Ledger.open(tmp_path, name="mine").path == tmp_path / "mine"
    assert Ledger.open(tmp_path, name=None).path != Ledger.open(tmp_path, name=None).path


def test_folder_that_cannot_be_made_is_an_output_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write to the output folder"):
        Ledger.open(tmp_path / "file", name="mine")


def test_file_in_the_place_of_a_sweep_is_told_with_another_name_to_type(tmp_path):
    (tmp_path / "mine").write_text("")
    with pytest.raises(OutputError, match="mine is no folder") as caught:
        Ledger.open(tmp_path, name="mine")
    assert caught.value.hint == "choose another sweep.name=NAME"


@pytest.mark.parametrize(
    ("status", "seen"),
    [("done", "done"), ("failed", "failed"), ("pruned", "pruned"), ("running", "stopped"), ("stopped", "stopped")],
)
def test_job_whose_process_is_gone_is_what_it_last_wrote_or_stopped(ledger, status, seen):
    assert begun(ledger, "a", replace(RUNNING, status=status)).state() == seen


def test_job_that_was_never_begun_is_waiting(ledger):
    assert ledger.folder("a").state() == "waiting"
    (ledger.path / "a").mkdir()
    assert ledger.folder("a").state() == "waiting"


def test_claimed_job_is_running_for_others_and_free_when_its_process_is_killed(ledger):
    folder = begun(ledger, "a", replace(RUNNING, status="done"))
    code = (
        "import sys, time; from pathlib import Path; from cvtrain.sweeps.job_folder import JobFolder\n"
        "with JobFolder(Path(sys.argv[1])).claimed() as is_ours: print(is_ours, flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(folder.path)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "True\n"
        assert folder.state() == "running"
        with folder.claimed() as is_ours:
            assert not is_ours
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    assert folder.state() == "done"
    with folder.claimed() as is_ours:
        assert is_ours


def test_copy_of_a_process_does_not_keep_the_job(ledger):
    folder = begun(ledger, "a")
    code = (
        "import os, sys, time; from pathlib import Path; from cvtrain.sweeps.job_folder import JobFolder\n"
        "with JobFolder(Path(sys.argv[1])).claimed():\n"
        "    if not os.fork(): print(os.getpid(), flush=True); time.sleep(60)\n"
        "    time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(folder.path)], stdout=subprocess.PIPE, text=True)
    copy = int(process.stdout.readline())
    assert folder.is_claimed()
    process.kill()
    process.wait()
    process.stdout.close()
    try:
        assert not folder.is_claimed()
    finally:
        os.kill(copy, signal.SIGKILL)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"attempts": 1}', "\x00"])
def test_damaged_record_is_as_none(ledger, content):
    folder = begun(ledger, "a")
    (folder.path / "job.json").write_text(content)
    assert folder.read() is None
    assert folder.state() == "waiting"


def test_command_comes_back_and_a_damaged_one_is_told(ledger):
    command = Command(["seed=1,2"], None, "config", has_secrets=False)
    assert not is_sweep(ledger.path)
    ledger.write_command(command)
    assert is_sweep(ledger.path)
    assert ledger.read_command() == command
    (ledger.path / "sweep.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"sweep\.json, which holds the command of this sweep, is gone or"):
        ledger.read_command()


def test_sweep_that_lost_its_command_is_still_one_and_says_what_to_type(ledger):
    begun(ledger, "a")
    assert is_sweep(ledger.path)
    with pytest.raises(CheckpointError) as caught:
        ledger.read_command()
    assert caught.value.hint == "type the command again, with sweep.name=mine"


def test_command_that_is_taken_back_leaves_the_one_before(ledger):
    first = Command(["seed=1,2"], None, "config", has_secrets=False)
    ledger.write_command(first)
    again = Ledger.open(ledger.path.parent, name="mine")
    again.write_command(replace(first, settings=["seed=oops"]))
    again.take_back_command()
    assert again.read_command() == first


@pytest.mark.parametrize("content", [None, "", "{", "[]", "\xff", "{}"])
def test_job_that_was_done_and_lost_its_figures_is_to_be_done_again(ledger, content):
    folder = begun(ledger, "a", replace(RUNNING, task="train", status="done"))
    (folder.path / "run.json").write_text('{"status": "done"}')
    assert folder.state() == "done"
    (folder.path / "run.json").unlink()
    if content is not None:
        (folder.path / "run.json").write_bytes(content.encode("latin-1"))
    assert folder.state() == "stopped"
    assert folder.read().error == "run.json is gone or damaged"


def test_leaderboard_holds_every_job_in_whatever_state(ledger):
    begun(ledger, "a", replace(RUNNING, status="failed", exit_code=5, error="diverged: x"))
    begun(ledger, "b", replace(RUNNING, overrides={"seed": "2"}))
    results = ledger.results({"b": {"seed": "2"}, "c": {"seed": "3"}})
    assert [(result.overrides["seed"], result.status) for result in results] == [
        ("2", "stopped"),
        ("3", "waiting"),
        ("1", "failed"),
    ]
    ledger.write_leaderboard(results, swept=None)
    with open(ledger.leaderboard_path, newline="") as file:
        rows = {row["seed"]: row for row in csv.DictReader(file)}
    assert {seed: row["status"] for seed, row in rows.items()} == {"1": "failed", "2": "stopped", "3": "waiting"}
    assert rows["1"]["error"] == "diverged: x"


def test_results_are_read_anew_when_a_record_changes(ledger):
    folder = begun(ledger, "a", replace(RUNNING, status="failed", exit_code=1))
    assert ledger.results()[0].status == "failed"
    folder.write(replace(RUNNING, status="done", exit_code=0))
    assert ledger.results()[0].status == "done"


def test_other_grid_and_other_versions_are_told(ledger):
    begun(ledger, "a", replace(RUNNING, status="done", versions={**versions(), "torch": "1.0"}))
    begun(ledger, "b", replace(RUNNING, status="done", versions=versions(), overrides={"model": "mlp"}))
    told = ledger.differences({"a"})
    assert told[0].endswith("holds a job of another grid, such as model=mlp")
    assert told[1].startswith("jobs of this sweep were run with torch 1.0; this is ")
    assert len(told) == 2
    assert len(ledger.differences({"a", "b"})) == len(ledger.differences(None)) == 1


def test_job_folder_names_its_log(tmp_path):
    assert JobFolder(tmp_path / "a").log_path == tmp_path / "a" / "log.txt"
