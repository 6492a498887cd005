"""Runs on disks that are full, broken or forbidden: what stays, what is said, what can still be continued.

`python -m tests.faults --only calls,damage,disks,limits` does the same at length.
"""

import random
import shutil
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))  # pytest imports a file at a time and knows no packages of tests
from cvtrain.console import Console
from cvtrain.engine.checkpoint import list_checkpoints
from tests.faults import calls, damage, disks, limits
from tests.faults.processes import Server
from tests.faults.small_runs import WARM_UP, leftovers

WARNING = "training goes on, and the next save tries again"


@pytest.fixture(scope="module")
def failing_calls(tmp_path_factory):
    """A prepared process whose copies can be made to see system calls fail."""
    folder = tmp_path_factory.mktemp("failing")
    library, lacking = calls.compiled(folder)
    if library is None:
        pytest.skip(f"this machine lacks {lacking}")
    server = Server(folder, WARM_UP, LD_PRELOAD=str(library))
    yield server
    server.close()


def test_fault_at_any_system_call_that_writes_is_survived_or_ends_the_run_resumably(
    failing_calls, end_of, only_run, tmp_path
):
    whole, names = calls.run_with(failing_calls, calls.Fault("none", 0, 0), calls.COMMAND, cwd=tmp_path / "whole")
    assert whole.code == 0, whole.stderr
    assert len(names) > 150
    expected = end_of(only_run(tmp_path / "whole"))
    faults = calls.all_faults(names)
    assert len(faults) > 800
    for fault in random.Random(0).sample(faults, 6):
        broken = calls.broken_by(failing_calls, fault, cwd=tmp_path / str(fault), expected=expected)
        assert broken is None, f"{fault} ({names[fault.first - 1]}): {broken}"


@pytest.mark.long
def test_disk_that_is_full_for_a_while_costs_one_warning_and_nothing_else(server, words, only_run, end_of, tmp_path):
    command = words(steps=28)
    command[command.index("trainer.checkpoint.every_minutes=0.001")] = "trainer.checkpoint.every_minutes=100"
    whole = server(command, cwd=tmp_path / "whole")
    first = next(number for number, name in enumerate(whole.calls, 1) if name == "link") + 2
    window = {"first": first, "last": first + 10, "names": ["write", "fsync", "link"]}
    ended = server(command, cwd=tmp_path / "full", kind="ENOSPC", **window)
    assert ended.code == 0, ended.stderr
    assert ended.stdout.count(WARNING) == 1
    assert "No space left on device" in ended.stdout
    assert end_of(only_run(tmp_path / "full")) == end_of(only_run(tmp_path / "whole"))
    assert leftovers(only_run(tmp_path / "full")) == []


def test_disk_that_stays_full_ends_with_exit_code_4_after_training(server, words, only_run, end_of, tmp_path):
    command = words(steps=28)
    command[command.index("trainer.checkpoint.every_minutes=0.001")] = "trainer.checkpoint.every_minutes=100"
    whole = server(command, cwd=tmp_path / "whole")
    first = next(number for number, name in enumerate(whole.calls, 1) if name == "link") + 3
    ended = server(command, cwd=tmp_path / "full", kind="ENOSPC", first=first, last=10**6, names=["write", "link"])
    assert ended.code == 4
    assert ended.stdout.count(WARNING) == 1
    assert ended.stdout.count("epoch") == 4, "every evaluation is still shown"
    assert "No space left on device" in ended.stderr
    run = only_run(tmp_path / "full")
    assert [file.step for file in list_checkpoints(run / "checkpoints", "step")] == [7]
    assert leftovers(run) == []
    assert server([f"resume={run}"], cwd=tmp_path).code == 0
    assert end_of(run) == end_of(only_run(tmp_path / "whole"))


@pytest.mark.long
def test_folder_that_is_removed_ends_with_exit_code_4(words, start, only_run, tmp_path):
    with start(words(steps=2000), cwd=tmp_path) as process:
        while not list(tmp_path.glob("out/train/*/*/checkpoints/best-*")):
            time.sleep(0.01)
        shutil.rmtree(only_run(tmp_path), ignore_errors=True)
        out, error = process.communicate(timeout=60)
    assert process.returncode == 4, error
    assert out.count(WARNING) == 1
    assert "No such file or directory" in error
    assert len(error.splitlines()) <= 6


def test_run_on_disks_that_are_really_full(server, words, only_run, end_of, tmp_path):
    assert server(disks.COMMAND, cwd=tmp_path / "whole").code == 0
    run = only_run(tmp_path / "whole")
    size = list_checkpoints(run / "checkpoints", "step")[-1].path.stat().st_size
    for number, num_bytes in enumerate((4096, 8192, 10 * 4096 + size + size // 2)):
        try:
            cwd = tmp_path / str(number)
            broken = disks.broken_by_full_disk(server, num_bytes, cwd=cwd, expected=end_of(run))
        except PermissionError as error:
            pytest.skip(f"this machine lacks {error}")
        assert broken is None, f"{num_bytes} bytes: {broken}"


def test_lines_that_standard_output_does_not_take_are_told_of_once_and_stand_in_the_log(monkeypatch, capsys):
    logged = []
    with open("/dev/full", "w", encoding="utf-8") as full:
        monkeypatch.setattr(sys, "stdout", full)
        console = Console(logged.append)
        console.say("one")
        console.warn("two")
        monkeypatch.undo()
        with pytest.raises(OSError, match="No space left"):
            full.close()
    assert logged == ["one", "warning: two"]
    assert capsys.readouterr().err.splitlines() == [
        "warning: standard output cannot be written (No space left on device): lines may be missing there"
    ]


SHORTLY = ("run.json", "config.yaml")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in SHORTLY else [pytest.mark.long]) for name in damage.OTHERS]
)
def test_damaged_file_of_a_run_is_told_of_or_made_anew(name, server, end_of, only_run, tmp_path):
    for command, folder in ((damage.SHORT, "short"), (damage.LONG, "long")):
        assert server(command, cwd=tmp_path / folder).code == 0
    run, expected = only_run(tmp_path / "short"), end_of(only_run(tmp_path / "long"))
    content = damage.flipped((run / name).read_bytes(), random.Random(name))
    assert damage.broken_by(server, run, name, content, expected=expected) is None


def test_run_whose_checkpoints_are_all_damaged_ends_with_exit_code_4_and_keeps_them(server, only_run, tmp_path):
    assert server(damage.SHORT, cwd=tmp_path).code == 0
    assert damage.all_damaged(server, only_run(tmp_path), cwd=tmp_path) is None


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs Linux")
@pytest.mark.parametrize(
    "what", ["64 open files, 8 workers", pytest.param("/dev/shm of 1 MB, 2 workers", marks=pytest.mark.long)]
)
def test_limit_of_the_system_is_named(what, images, tmp_path):
    (limit,) = (limit for limit in limits.limits(images(tmp_path / "images")) if limit.what == what)
    if lacking := limits.lacking_for(limit):
        pytest.skip(f"this machine lacks {lacking}")
    assert limits.broken_by(limit, cwd=tmp_path / "run") is None
