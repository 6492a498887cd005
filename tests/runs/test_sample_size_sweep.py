"""Sample-size sweeps that are killed, stopped, short of disk space: their tables end as if nothing had happened."""

import csv
import os
import random
import signal
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

SWEEP = ["task=sample_size_sweep", "model=mlp", "model.hidden=[16]", "optimizer.lr=0.02", "trainer.device=cpu"]
SWEEP += ["budget.epochs=1", "output_dir=out"]
QUICK = [*SWEEP, "sizes=[3,5]", "replicates=1", "budget.min_steps=6", "trainer.evaluate_every=3", "sweep.jobs=1"]
SLOW = [*SWEEP, "sizes=[4,8]", "replicates=2", "budget.min_steps=800", "trainer.evaluate_every=40"]
NUM_EVALUATIONS = 20


def folder_of(cwd):
    """The one sweep below a working folder, or None."""
    found = sorted(cwd.glob("out/sample_size_sweep/*/*"))
    assert len(found) <= 1, found
    return found[0] if found else None


def rows_of(folder, *, but=("seconds",)):
    with open(folder / "sample_size.csv", encoding="utf-8", newline="") as file:
        return [{key: value for key, value in row.items() if key not in but} for row in csv.DictReader(file)]


def end_of(folder):
    """What a sweep has come to, apart from times."""
    untimed = ("seconds", "images_per_second")
    metrics = {}
    for path in sorted(folder.glob("runs/*/metrics.csv")):
        with open(path, encoding="utf-8", newline="") as file:
            metrics[path.parent.name] = [
                {key: value for key, value in row.items() if key not in untimed} for row in csv.DictReader(file)
            ]
    return {"table": rows_of(folder), "metrics": metrics, "curve": (folder / "learning_curve.json").read_text()}


def leftovers(folder):
    """Names of temporary, shared and damaged files, and of checkpoints that nobody needs any more."""
    found = [*folder.rglob(".*"), *folder.rglob("*.bad"), *folder.rglob("*.ckpt")]
    return [str(path.relative_to(folder)) for path in found if path.name != ".lock"]


def user_of(folder):
    """The number of the process that last opened a folder."""
    try:
        return int((folder / ".lock").read_text().split()[1])
    except (OSError, IndexError):
        return None


def wait(condition, process=None, *, seconds=100.0):
    """Waits until something is so; fails when it never is, or the process has ended before."""
    end = time.monotonic() + seconds
    while not condition():
        assert process is None or process.poll() is None, process.communicate()
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture(scope="module")
def quick(server, tmp_path_factory):
    """A quick sweep that nobody disturbed: its process and its folder."""
    cwd = tmp_path_factory.mktemp("quick")
    ended = server(QUICK, cwd=cwd)
    assert ended.code == 0, ended.stderr
    return ended, folder_of(cwd)


@pytest.fixture(scope="module")
def slow(server, tmp_path_factory):
    """The folder of a slow sweep that nobody disturbed, done in one process."""
    cwd = tmp_path_factory.mktemp("slow")
    ended = server([*SLOW, "sweep.jobs=1"], cwd=cwd)
    assert ended.code == 0, ended.stderr
    return folder_of(cwd)


# ------------------------------------------------------------------------------------------ at calls that write


def sampled(calls, count):
    """Numbers of some of the calls of a whole run."""
    rng = random.Random(0)
    return sorted(rng.sample(range(1, len(calls) + 1), count))


@pytest.mark.long
def test_sweep_killed_at_calls_that_write_ends_like_an_undisturbed_one(server, quick, tmp_path):
    whole, undisturbed = quick
    expected, num_continued = end_of(undisturbed), 0
    for number in sampled(whole.calls, 6):
        cwd = tmp_path / str(number)
        assert server(QUICK, cwd=cwd, kind="kill", first=number, last=number).code == -9
        folder = folder_of(cwd)
        if folder is None or not (folder / "config.yaml").exists():
            continue  # killed before it was a sweep at all
        resumed = server([f"resume={folder}"], cwd=cwd)
        assert resumed.code == 0, (number, whole.calls[number - 1], resumed.stderr)
        assert end_of(folder) == expected, (number, whole.calls[number - 1])
        assert leftovers(folder) == []
        num_continued += 1
    assert num_continued >= 3


@pytest.mark.long
def test_full_disk_at_calls_that_write_is_survived_or_ends_resumably(server, quick, tmp_path):
    whole, undisturbed = quick
    expected, codes = end_of(undisturbed), []
    for number in sampled(whole.calls, 6):
        cwd = tmp_path / str(number)
        ended = server(QUICK, cwd=cwd, kind="ENOSPC", first=number, last=number)
        codes.append(ended.code)
        assert "Traceback" not in ended.stderr
        assert len(ended.stderr.splitlines()) <= 6
        assert ended.code in (0, 4), (number, whole.calls[number - 1], ended.stderr)
        folder = folder_of(cwd)
        if folder is None or not (folder / "config.yaml").exists():
            continue
        if ended.code or leftovers(folder):  # a file that could not be removed is, the next time
            assert server([f"resume={folder}"], cwd=cwd).code == 0, number
        assert end_of(folder) == expected, (number, whole.calls[number - 1])
        assert leftovers(folder) == []
    assert {0, 4} == set(codes)


def test_disk_that_stays_full_ends_with_exit_code_4_and_words(server, quick, tmp_path):
    whole, undisturbed = quick
    half = len(whole.calls) // 2
    ended = server(QUICK, cwd=tmp_path, kind="ENOSPC", first=half, last=10**6, names=["write", "link", "mkdir"])
    assert ended.code == 4, ended.stderr
    assert "No space left on device" in ended.stderr + ended.stdout
    folder = folder_of(tmp_path)
    assert server([f"resume={folder}"], cwd=tmp_path).code == 0
    assert end_of(folder) == end_of(undisturbed)


@pytest.mark.long
def test_signal_at_calls_that_write_stops_the_sweep_with_the_command_that_goes_on(server, quick, tmp_path):
    whole, undisturbed = quick
    num_calls = len(whole.calls)
    for number in (num_calls // 2, *range(num_calls - 8, num_calls, 2)):  # in a training, and when all are done
        cwd = tmp_path / str(number)
        ended = server(QUICK, cwd=cwd, kind="SIGTERM", first=number, last=number)
        folder = folder_of(cwd)
        assert "Traceback" not in ended.stderr
        if ended.code == 143 and folder is not None and (folder / "config.yaml").exists():
            assert f"continue with: cvtrain resume={folder.relative_to(cwd)}" in ended.stderr, whole.calls[number - 1]
            assert server([f"resume={folder}"], cwd=cwd).code == 0
        elif ended.code:
            assert ended.code == 143
            continue
        assert end_of(folder) == end_of(undisturbed), number


# ------------------------------------------------------------------------------------------ at any moment


@contextmanager
def in_background(server, words, *, cwd):
    """A command that runs while the block looks at it; `ended` has one item when it has ended."""
    ended = []
    thread = threading.Thread(target=lambda: ended.append(server(words, cwd=cwd)))
    thread.start()
    try:
        yield ended
    finally:
        thread.join()


@pytest.mark.long
def test_sweep_killed_at_random_moments_ends_like_an_undisturbed_one(server, slow, tmp_path):
    rng, words, num_kills, traces = random.Random(3), [*SLOW, "sweep.jobs=1"], 0, {}
    while True:
        before = opener(tmp_path)
        with in_background(server, words, cwd=tmp_path) as ended:
            wait(lambda: ended or opener(tmp_path) not in (None, before))  # noqa: B023 - called in this round only
            end = time.monotonic() + rng.uniform(0.2, 1.5)
            while not ended and time.monotonic() < end:
                time.sleep(0.01)
            if num_kills < 4 and not ended:
                os.kill(opener(tmp_path), signal.SIGKILL)
        folder = folder_of(tmp_path)
        done = {path: path.stat().st_mtime_ns for path in done_files(folder)}
        assert traces.items() <= done.items(), "a training that was done has been touched"
        traces = done
        if ended[0].code == 0:
            break
        assert ended[0].code == -9, ended[0].stderr
        num_kills += 1
        words = [f"resume={folder}"] if (folder / "config.yaml").exists() else words
    assert num_kills >= 2
    assert end_of(folder) == end_of(slow)
    assert leftovers(folder) == []


def opener(cwd):
    """The process that last opened the sweep, if there is a sweep."""
    folder = folder_of(cwd)
    return user_of(folder) if folder else None


def done_files(folder):
    """The files of all trainings that have come to their end."""
    cards = [path for path in folder.glob("runs/*/run.json") if '"status": "done"' in path.read_text()]
    return [card.parent / name for card in cards for name in ("run.json", "log.txt", "metrics.csv", "split.npz")]


# ------------------------------------------------------------------------------------------ with worker processes


def evaluations(folder):
    """The steps that the logs of trainings tell of, by training."""
    found = {}
    for log in folder.glob("runs/*/log.txt"):
        words = [line.split() for line in log.read_text().splitlines()]
        found[log.parent.name] = [int(line[line.index("step") + 1]) for line in words if "step" in line[:5]]
    return found


def busy_workers(folder, parent):
    """The processes that are at work in folders of trainings which have a checkpoint."""
    users = {user_of(path.parent.parent) for path in folder.glob("runs/*/checkpoints/*.ckpt")}
    return {pid for pid in users if pid and pid != parent and is_alive(pid)}


@pytest.mark.long
def test_signals_kills_and_lost_workers_leave_the_table_as_it_would_be(start, server, slow, read_card, tmp_path):
    words = [*SLOW, "sweep.jobs=2"]
    workers: set[int] = set()

    def begin(command):
        return start(command, cwd=tmp_path, start_new_session=True)

    def both_at_work(process):
        wait(lambda: folder_of(tmp_path) and len(busy_workers(folder_of(tmp_path), process.pid)) == 2, process)
        found = busy_workers(folder_of(tmp_path), process.pid)
        workers.update(found)
        return found

    # A worker dies: it is told of, and the others go on; then a signal comes to the parent alone.
    with begin(words) as process:
        victim = min(both_at_work(process))
        folder = folder_of(tmp_path)
        lost = next(path.name for path in folder.glob("runs/*") if user_of(path) == victim)
        os.kill(victim, signal.SIGKILL)
        wait(lambda: "failed: its process was ended by signal 9 (SIGKILL)" in (folder / "log.txt").read_text(), process)
        process.send_signal(signal.SIGTERM)
        out, error = process.communicate(timeout=100)
    assert process.returncode == 143, error
    assert f"{int(lost[1:6])} per class, run {int(lost[-2:])} failed" in out
    assert f"continue with: cvtrain resume={folder.relative_to(tmp_path)}" in error
    assert "Traceback" not in error + out
    card = read_card(folder)
    assert (card["status"], card["stop_reason"], card["exit_code"]) == ("stopped", "signal", 143)
    assert not (folder / ".shared").exists()
    assert not [file for file in leftovers(folder) if ".tmp" in file and lost not in file], "what was stopped is saved"
    steps = evaluations(folder)

    # Ctrl-C goes to the whole group.
    with begin([f"resume={folder}"]) as process:
        both_at_work(process)
        os.killpg(process.pid, signal.SIGINT)
        _, error = process.communicate(timeout=100)
    assert process.returncode == 130, error
    assert "continue with: cvtrain resume=" in error
    assert "Traceback" not in error
    assert all(evaluations(folder)[name][: len(steps[name])] == steps[name] for name in steps)

    # The parent is killed; it is resumed while its workers may not have noticed yet.
    with begin([f"resume={folder}"]) as process:
        both_at_work(process)
        process.kill()
        process.wait()
    done = {path: path.stat().st_mtime_ns for path in done_files(folder)}
    ended = server([f"resume={folder}", "sweep.jobs=1"], cwd=tmp_path)
    assert ended.code == 0, ended.stderr + ended.stdout
    wait(lambda: not any(map(is_alive, workers)), seconds=10)
    assert all(path.stat().st_mtime_ns == time_ns for path, time_ns in done.items())
    assert end_of(folder) == end_of(slow), "with two workers and four lives as in one process at once"
    assert leftovers(folder) == []
    for name, steps in evaluations(folder).items():
        # What was evaluated after the last checkpoint is evaluated again: with four lives, three times at most.
        assert sorted(set(steps)) == [40 * (i + 1) for i in range(NUM_EVALUATIONS)], name
        assert len(steps) <= NUM_EVALUATIONS + 3, name
