"""Runs that are killed with SIGKILL, and end as if they had not been."""

import random
import shutil
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

NUM_KILLS = 20
MOMENTS = ("starting", "training", "training", "saving", "ending")
"""When the processes of one run are killed, in any order but for the last."""
STEPS = 250


def kill_at(moment, process, cwd, rng, *, last_step):
    """Kills a process at a random time around a moment of its life; returns whether that was before its end."""
    if moment == "starting":
        wait(rng.uniform(0, 2), process)
    else:
        wait(60, process, until=lambda: has_begun(process, cwd))
    if moment == "training":
        wait(rng.uniform(0, 0.6), process)
    elif moment == "saving":
        wait(60, process, until=lambda: any(cwd.glob("out/train/*/*/checkpoints/.tmp-*")), every_seconds=0)
    elif moment == "ending":
        wait(60, process, until=lambda: f"step {last_step} " in log(cwd), every_seconds=0.0005)
        wait(rng.uniform(0, 0.03), process)
    is_alive = process.poll() is None
    process.kill()
    return is_alive


def wait(seconds, process, *, until=lambda: False, every_seconds=0.002):
    """Waits for some time at most, or until something is so or the process ends."""
    end = time.monotonic() + seconds
    while process.poll() is None and not until() and time.monotonic() < end:
        time.sleep(every_seconds)


def log(cwd):
    return "".join(path.read_text() for path in cwd.glob("out/train/*/*/log.txt"))


def has_begun(process, cwd):
    """Whether this process has taken the lock of the run and made its parts."""
    text = log(cwd)
    lock = "".join(path.read_text() for path in cwd.glob("out/train/*/*/.lock"))
    return lock.startswith(f"process {process.pid} ") and text.rstrip().rpartition("writes to")[1] != ""


@pytest.fixture
def live(words, start, only_run):
    """Kills and continues one run several times, then lets it end."""

    def lived(life, kills, cwd, *, last_step):
        rng = random.Random(life)
        moments = [*rng.sample(MOMENTS[:-1], len(MOMENTS) - 1), MOMENTS[-1]]
        while True:
            run = only_run(cwd)
            if run is not None and not (run / "config.yaml").exists():
                shutil.rmtree(run)  # killed before it was a run at all: nothing to continue
                run = None
            with start([f"resume={run}"] if run else words(steps=STEPS), cwd=cwd) as process:
                if moments and len(kills) < NUM_KILLS:
                    moment = moments.pop(0)
                    if kill_at(moment, process, cwd, rng, last_step=last_step):
                        kills.append((life, moment))
                        continue
                out, error = process.communicate(timeout=60)
            assert process.returncode == 0, out + error  # a run that was killed as it ended says that it is finished
            return only_run(cwd)

    return lived


def test_run_killed_at_random_moments_ends_like_uninterrupted_run(live, end_of, uninterrupted, tmp_path):
    expected = uninterrupted(steps=STEPS)
    last_step = expected["metrics.csv"].split()[-1].split(",")[1]
    kills: list = []
    ended: dict = {}

    def every_second(first):
        for life in range(first, 50, 2):
            if len(kills) < NUM_KILLS:
                ended[life] = live(life, kills, tmp_path / str(life), last_step=last_step)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(every_second, range(2)))
    print(kills)
    assert len(kills) >= NUM_KILLS
    assert len(ended) >= 4
    for life, run in ended.items():
        assert end_of(run) == expected, [moment for of, moment in kills if of == life]
        assert leftovers(run) == []


def test_run_killed_at_each_call_that_writes_ends_like_uninterrupted_run(servers, words, only_run, end_of, tmp_path):
    command = words("trainer.checkpoint.every_minutes=1e-9", steps=4, every=2)
    whole = servers[0](command, cwd=tmp_path / "whole")
    expected = end_of(only_run(tmp_path / "whole"))

    def killed_and_continued(server, number):
        cwd = tmp_path / str(number)
        assert server(command, cwd=cwd, kind="kill", first=number, last=number).code == -9
        run = only_run(cwd)
        if run is None or not (run / "config.yaml").exists():
            return False  # killed before it was a run at all
        resumed = server([f"resume={run}"], cwd=cwd)
        assert resumed.code == 0, (number, whole.calls[number - 1], resumed.stderr)
        assert end_of(run) == expected, (number, whole.calls[number - 1])
        assert leftovers(run) == []
        return True

    def every_second(first):
        numbers = range(1 + first, len(whole.calls) + 1, 2)
        return sum(killed_and_continued(servers[first], number) for number in numbers)

    with ThreadPoolExecutor(2) as pool:
        num_continued = sum(pool.map(every_second, range(2)))
    assert num_continued >= 40


def leftovers(run):
    """Names of temporary and of damaged files."""
    return [path.name for path in [*run.rglob(".*"), *run.rglob("*.bad")] if path.name != ".lock"]
