"""Signals to a training process: what it says, how it ends, what it leaves; `python -m tests.faults` sends more."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.faults.figures import Settings
from tests.faults.processes import environment, wait_until
from tests.faults.signals import Stops, close_terminal
from tests.faults.small_runs import kinds_of_calls, leftovers

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)


def assert_short(text):
    assert "Traceback" not in text
    assert len(text.splitlines()) <= 6, text


def test_every_signal_saves_and_the_run_resumes_exactly(servers, tmp_path):
    stops = Stops(Settings(tmp_path, patience_seconds=60), tmp_path, 5, num_steps=40)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(stops.work, servers, range(2)))
    assert stops.num_trained >= 2
    for way in stops.ways:
        assert len(way.seconds) == 1, way.name
        assert way.broken == [], way.name


def test_stopped_run_says_where_it_stands_and_how_to_go_on(server, words, only_run, read_card, tmp_path):
    process = server.start(words("trainer.log_every=1", steps=5000, every=1000), cwd=tmp_path)
    assert wait_until(lambda: "step 5 " in process.stdout(), seconds=60)
    process.send_signal(signal.SIGTERM)
    ended, run = process.wait(), only_run(tmp_path)
    card = read_card(run)
    assert (card["status"], card["stop_reason"], card["exit_code"]) == ("stopped", "signal", 143)
    last = ended.stdout.splitlines()[-1].split()[1]
    assert f"stopped by signal 15 (SIGTERM) at step {last} of 5000; the state is saved" in ended.stderr
    assert f"cvtrain resume={run.relative_to(tmp_path)}" in ended.stderr


def test_signal_at_a_call_that_writes_stops_the_run_resumably(servers, words, only_run, end_of, read_card, tmp_path):
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
        assert leftovers(run) == []

    def every_second(first):
        for call in kinds_of_calls(whole.calls)[3 * first :: 6]:
            stop(servers[first], call)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(every_second, range(2)))
    assert len(codes) >= 4
    assert codes.count(0) <= 6  # of the writing calls some make the report, when all is trained and tested


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_while_modules_are_loaded_ends_without_traceback(number, words, start, tmp_path):
    with start(words(steps=200), cwd=tmp_path) as process:
        assert wait_until(lambda: "libtorch_cpu" in Path(f"/proc/{process.pid}/maps").read_text(), seconds=60)
        process.send_signal(number)
        _, error = process.communicate(timeout=60)
    assert process.returncode == 128 + number, error
    assert_short(error)
    assert signal.Signals(number).name in error


def test_interrupt_before_the_command_listens_ends_without_a_word(tmp_path):
    hook = "lambda event, about: event == 'import' and about[0] == 'cvtrain.cli' and signal.raise_signal(signal.SIGINT)"
    (tmp_path / "sitecustomize.py").write_text(f"import signal, sys\nsys.addaudithook({hook})")
    path = os.pathsep.join([str(tmp_path), environment()["PYTHONPATH"]])
    done = subprocess.run(
        [sys.executable, "-m", "cvtrain", "--version"],
        env={**environment(), "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


def test_signal_while_images_are_read_stops_the_run_which_then_starts_anew(
    words, server, only_run, read_card, tmp_path
):
    process = server.start(words("data.per_class=20000", steps=3), cwd=tmp_path)
    assert wait_until(lambda: list(tmp_path.glob("out/train/*/*/config.yaml")), seconds=60)
    process.send_signal(signal.SIGTERM)
    ended, run = process.wait(), only_run(tmp_path)
    assert ended.code == 143, ended.stderr
    assert_short(ended.stderr)
    assert read_card(run)["status"] == "stopped"
    assert f"cvtrain resume={run.relative_to(tmp_path)}" in ended.stderr
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace("per_class: 20000", "per_class: 60"))
    ended = server([f"resume={run}"], cwd=tmp_path)
    assert ended.code == 0, ended.stderr
    assert "there is no checkpoint yet: starts from the beginning" in ended.stdout


def test_second_interrupt_leaves_at_once(words, server, tmp_path):
    # A single operation takes seconds: the first signal is remembered until it ends, the second does not wait.
    slow = ["model=vgg11", "data.image_size=128", "trainer.batch_size=190", "trainer.accumulate=1", "augment=none"]
    process = server.start(words(*slow, steps=4), cwd=tmp_path)
    assert wait_until(lambda: "writes to" in process.stdout(), seconds=60)
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    process.leave_alone(0.3)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    ended = process.wait(10)
    assert ended.code == 130
    assert_short(ended.stderr)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="gives a process a terminal as Linux does")
def test_run_whose_terminal_is_closed_saves_its_state(only_run, read_card, tmp_path):
    code, _ = close_terminal(tmp_path / "run", 3)
    card = read_card(only_run(tmp_path / "run"))
    assert (code, card["status"], card["exit_code"]) == (129, "stopped", 129)
    assert "the state is saved" in card["error"]


@pytest.mark.parametrize("reader", ["head -1", "true"])
def test_lines_that_nobody_reads_end_nothing(reader, tmp_path):
    program = (
        "from cvtrain.console import Console\nfor i in range(20_000): Console().say('a line')\nprint(open('done', 'w'))"
    )
    command = f'"{sys.executable}" -c "{program}" | {reader}; echo ${{PIPESTATUS[0]}}'
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "0", done.stderr
    assert done.stderr == ""
    assert (tmp_path / "done").exists()
