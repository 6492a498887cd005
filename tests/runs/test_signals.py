"""Signals to a training process: what it says, how it ends, what it leaves."""

import os
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cvtrain.engine.checkpoint import list_checkpoints

STEPS = 200
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)


def wait(condition, process=None, *, seconds=60.0):
    """Waits until something is so; fails when it never is, or the process has ended before."""
    end = time.monotonic() + seconds
    while not condition():
        assert process is None or process.poll() is None, process.communicate()
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.002)


def lines(cwd):
    return "".join(path.read_text() for path in cwd.glob("out/train/*/*/log.txt")).splitlines()


def children(pid):
    """Processes whose parent is `pid`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended meanwhile
            continue
        if int(fields[1]) == pid and fields[0] != "Z":
            found.append(int(path.parent.name))
    return found


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def assert_short(text):
    assert "Traceback" not in text
    assert len(text.splitlines()) <= 6, text


def test_every_signal_saves_and_the_run_resumes_exactly(
    words, start, server, only_run, end_of, uninterrupted, read_card, tmp_path
):
    settings = ["trainer.checkpoint.every_minutes=100", "trainer.early_stopping.patience=5"]
    expected = uninterrupted(*settings, steps=STEPS, every=10)

    def stop(number):
        cwd = tmp_path / str(int(number))
        with start(words(*settings, steps=STEPS, every=10), cwd=cwd) as process:
            wait(lambda: len(lines(cwd)) >= 4 + number % 5, process)
            process.send_signal(number)
            _, error = process.communicate(timeout=30)
        assert process.returncode == 128 + number, error
        assert_short(error)
        return only_run(cwd), error

    with ThreadPoolExecutor(2) as pool:
        stopped = list(pool.map(stop, SIGNALS))
    for number, (run, error) in zip(SIGNALS, stopped, strict=True):
        card = read_card(run)
        assert (card["status"], card["stop_reason"], card["exit_code"]) == ("stopped", "signal", 128 + number)
        step = list_checkpoints(run / "checkpoints", "step")[-1].step
        assert f"at step {step} of {STEPS}; the state is saved" in error
        assert f"cvtrain resume={run.relative_to(tmp_path / str(int(number)))}" in error
        assert 0 < step < STEPS
        ended = server([f"resume={run}"], cwd=tmp_path / "resumed")
        assert ended.code == 0, ended.stderr
        assert end_of(run) == expected
        assert read_card(run)["status"] == "done"


def test_signal_at_any_call_that_writes_stops_the_run_resumably(servers, words, only_run, end_of, read_card, tmp_path):
    command = words("trainer.checkpoint.every_minutes=100", steps=6, every=3)
    whole = servers[0](command, cwd=tmp_path / "whole")
    expected = end_of(only_run(tmp_path / "whole"))
    codes = []

    def stop(server, call):
        number, cwd = SIGNALS[call % len(SIGNALS)], tmp_path / str(call)
        ended = server(command, cwd=cwd, kind=number.name, first=call, last=call)
        codes.append(ended.code)
        assert_short(ended.stderr)
        run = only_run(cwd)
        if run is None or not (run / "config.yaml").exists():
            assert ended.code == 128 + number
            return
        card = read_card(run)
        if ended.code == 0:  # it came when all was done
            assert card["status"] == "done"
        else:
            assert (ended.code, card["status"], card["stop_reason"]) == (128 + number, "stopped", "signal")
            resumed = server([f"resume={run}"], cwd=cwd)
            assert resumed.code == 0, resumed.stderr
        assert end_of(run) == expected, (call, whole.calls[call - 1])
        assert [path.name for path in run.rglob(".*") if path.name != ".lock"] == []

    def every_second(first):
        for call in range(1 + first, len(whole.calls) + 1, 2):
            stop(servers[first], call)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(every_second, range(2)))
    assert len(codes) >= 35
    assert codes.count(0) <= 10  # of the writing calls some draw plots, when all is trained and tested


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_while_modules_are_loaded_ends_without_traceback(number, words, start, tmp_path):
    with start(words(steps=STEPS), cwd=tmp_path) as process:
        wait(lambda: "libtorch_cpu" in Path(f"/proc/{process.pid}/maps").read_text(), process)
        process.send_signal(number)
        _, error = process.communicate(timeout=30)
    assert process.returncode == 128 + number, error
    assert_short(error)
    assert signal.Signals(number).name in error


def test_signal_while_images_are_read_stops_the_run_which_then_starts_anew(
    words, start, server, only_run, read_card, tmp_path
):
    with start(words("data.per_class=20000", steps=3), cwd=tmp_path) as process:
        wait(lambda: list(tmp_path.glob("out/train/*/*/config.yaml")), process)
        process.send_signal(signal.SIGTERM)
        _, error = process.communicate(timeout=30)
    run = only_run(tmp_path)
    assert process.returncode == 143, error
    assert_short(error)
    assert read_card(run)["status"] == "stopped"
    assert f"cvtrain resume={run.relative_to(tmp_path)}" in error
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace("per_class: 20000", "per_class: 60"))
    ended = server([f"resume={run}"], cwd=tmp_path)
    assert ended.code == 0, ended.stderr
    assert "there is no checkpoint yet: starts from the beginning" in ended.stdout


def files_settings(words, root, *, workers, steps):
    """Training from image files, decoded by worker processes."""
    data = ["data=image_folder", f"data.root={root}", "data.loader=files", f"data.num_workers={workers}"]
    return [*data, *(word for word in words(steps=steps) if not word.startswith("data"))]


def test_signal_to_the_whole_group_leaves_no_workers_and_no_tracebacks(
    words, start, images, only_run, read_card, tmp_path
):
    settings = files_settings(words, images(tmp_path / "images"), workers=2, steps=100_000)

    def stop(number):
        cwd = tmp_path / str(int(number))
        with start(settings, cwd=cwd, start_new_session=True) as process:
            wait(lambda: len(lines(cwd)) >= 5, process)
            workers = children(process.pid)
            os.killpg(process.pid, number)
            _, error = process.communicate(timeout=30)
        assert process.returncode == 128 + number, error
        assert_short(error)
        assert len(workers) >= 2
        wait(lambda: not any(is_alive(pid) for pid in workers), seconds=10)
        assert read_card(only_run(cwd))["status"] == "stopped"

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(stop, (signal.SIGINT, signal.SIGTERM)))


def test_killed_run_with_workers_can_be_continued_at_once(words, start, images, server, only_run, tmp_path):
    settings = files_settings(words, images(tmp_path / "images"), workers=2, steps=100_000)
    with start(settings, cwd=tmp_path) as process:
        wait(lambda: len(lines(tmp_path)) >= 5, process)
        workers = children(process.pid)
        process.kill()
        process.wait()
    run = only_run(tmp_path)
    step = list_checkpoints(run / "checkpoints", "step")[-1].step
    ended = server([f"resume={run}", f"trainer.steps={step + 2}", "data.num_workers=0"], cwd=tmp_path)
    assert ended.code == 0, ended.stderr
    wait(lambda: not any(is_alive(pid) for pid in workers), seconds=10)
    assert not [path for pid in workers for path in Path("/dev/shm").glob(f"torch_{pid}_*")]


def test_second_interrupt_leaves_at_once_and_the_run_can_be_continued(words, start, server, only_run, tmp_path):
    # A single operation takes seconds: the first signal is remembered until it ends, the second does not wait.
    slow = ["model=vgg11", "data.image_size=128", "trainer.batch_size=190", "trainer.accumulate=1", "augment=none"]
    with start(words(*slow, steps=4), cwd=tmp_path) as process:
        wait(lambda: any("writes to" in line for line in lines(tmp_path)), process)
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=0.3)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=5)
    assert process.returncode == 130
    assert_short(error)
