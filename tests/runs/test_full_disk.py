"""Runs on disks that are full or broken: what stays, what is said, what can still be continued."""

import contextlib
import os
import shutil
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from cvtrain.engine.checkpoint import list_checkpoints, read_checkpoint

WARNING = "training goes on, and the next save tries again"


def leftovers(run):
    """Names of temporary files."""
    return [path.name for path in run.rglob(".*") if path.name != ".lock"]


def test_error_at_any_call_that_writes_is_survived_or_ends_the_run_resumably(
    servers, words, only_run, end_of, tmp_path
):
    command = words(steps=6, every=3)
    command[command.index("trainer.checkpoint.every_minutes=0.001")] = "trainer.checkpoint.every_minutes=100"
    whole = servers[0](command, cwd=tmp_path / "whole")
    expected = end_of(only_run(tmp_path / "whole"))
    outcomes = {}

    def fail(server, number, kind):
        cwd = tmp_path / f"{kind}-{number}"
        ended = server(command, cwd=cwd, kind=kind, first=number, last=number)
        outcomes[number] = ended.code
        assert "Traceback" not in ended.stderr
        assert len(ended.stderr.splitlines()) <= 6
        assert ended.stdout.count(WARNING) <= 1
        assert ended.code in (0, 4), (number, ended.stderr)
        run = only_run(cwd)
        if run is None or not (run / "config.yaml").exists():
            return
        assert leftovers(run) == []
        for file in list_checkpoints(run / "checkpoints", "step"):
            read_checkpoint(file.path)
        if ended.code:
            again = server([f"resume={run}"], cwd=cwd)
            assert again.code == 0, (number, again.stderr)
        assert end_of(run) == expected, (number, whole.calls[number - 1])

    def every_second(first):
        for number in range(1 + first, len(whole.calls) + 1, 2):
            fail(servers[first], number, "ENOSPC" if number % 4 < 2 else "EIO")

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(every_second, range(2)))
    assert list(outcomes.values()).count(0) >= 10


def test_disk_that_is_full_for_a_while_costs_one_warning_and_nothing_else(server, words, only_run, end_of, tmp_path):
    command = words(steps=28)
    command[command.index("trainer.checkpoint.every_minutes=0.001")] = "trainer.checkpoint.every_minutes=100"
    whole = server(command, cwd=tmp_path / "whole")
    writes = [number for number, name in enumerate(whole.calls, 1) if name == "write"]
    window = {"first": writes[2], "last": writes[2] + 6, "names": ["write", "fsync", "link"]}
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


@pytest.fixture
def tiny_disk(tmp_path):
    """Mounts a file system of so many bytes: `tiny_disk(num_bytes)`."""
    mounted = []

    def mount(num_bytes):
        folder = tmp_path / f"disk-{num_bytes}"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={num_bytes}", "tmpfs", str(folder)]
        if os.geteuid() != 0 or not shutil.which("mount"):
            pytest.skip("only root may mount a small disk")
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"a small disk cannot be mounted: {done.stderr.strip()}")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        with contextlib.suppress(subprocess.CalledProcessError):
            subprocess.run(["umount", "-l", str(folder)], check=True)


def test_run_on_a_disk_that_is_really_full(tiny_disk, server, words, end_of, read_card, tmp_path):
    command = [word for word in words(steps=28) if not word.startswith("output_dir")]
    whole = server([*command, "output_dir=out"], cwd=tmp_path)
    assert whole.code == 0
    (expected,) = tmp_path.glob("out/train/*/*")
    size = list_checkpoints(expected / "checkpoints", "step")[-1].path.stat().st_size

    ended = server([*command, f"output_dir={tiny_disk(8192)}/out"], cwd=tmp_path)
    assert ended.code == 4, "no room for the first file: ends before training"
    assert "epoch" not in ended.stdout
    assert "No space left on device" in ended.stderr

    disk = tiny_disk(10 * 4096 + size + size // 2)
    ended = server([*command, f"output_dir={disk}/out"], cwd=tmp_path)
    assert ended.code == 4
    assert ended.stdout.count(WARNING) == 1
    assert ended.stdout.count("epoch") == 4
    (run,) = disk.glob("out/train/*/*")
    assert leftovers(run) == []
    (file,) = list_checkpoints(run / "checkpoints", "step")
    read_checkpoint(file.path)
    subprocess.run(["mount", "-o", "remount,size=1m", str(disk)], check=True)
    assert server([f"resume={run}"], cwd=tmp_path).code == 0
    assert end_of(run) == end_of(expected)
    assert read_card(run)["status"] == "done"
