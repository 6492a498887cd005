import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from cvtrain.errors import ConfigError, InterruptedBySignal
from cvtrain.signals import SIGNALS, Interruption, StopRequest

PATHS = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}


@pytest.mark.parametrize("number", SIGNALS)
def test_signal_is_remembered_while_a_loop_listens(number):
    with StopRequest() as stop:
        stop.listening = True
        assert not stop
        signal.raise_signal(number)
        assert stop
        assert stop.signum == number
        signal.raise_signal(signal.SIGTERM)
        assert stop.signum == number, "the first counts"


@pytest.mark.parametrize("number", SIGNALS)
def test_signal_is_raised_while_nothing_listens(number):
    with pytest.raises(InterruptedBySignal, match=rf"stopped by signal {int(number)} \(SIG") as raised, StopRequest():
        signal.raise_signal(number)
    assert raised.value.exit_code == 128 + number


def test_signal_is_no_exception_that_a_reader_of_foreign_files_could_take_for_damage():
    def read():
        try:
            signal.raise_signal(signal.SIGTERM)
        except Exception:
            return "damaged"

    with pytest.raises(InterruptedBySignal), StopRequest():
        read()
    assert not issubclass(Interruption, Exception)


def test_signal_that_makes_a_library_fail_while_it_cleans_up_is_told_as_a_signal():
    def compose():
        try:
            try:
                signal.raise_signal(signal.SIGTERM)
            finally:
                None.restore()  # as OmegaConf does with a node that it has not made yet
        except AttributeError as error:
            raise ConfigError(f"cannot be composed: {error}") from None

    with pytest.raises(InterruptedBySignal, match="SIGTERM"), StopRequest():
        compose()
    with pytest.raises(ConfigError, match="cannot be composed"), StopRequest():
        raise ConfigError("cannot be composed")


def raising_first(call, number):
    """The same call, but a signal comes just before the first one."""
    left = [number]

    def come_first(*args, **kwargs):
        if left:
            signal.raise_signal(left.pop())
        return call(*args, **kwargs)

    return come_first


def test_signal_that_comes_while_handlers_are_set_is_told_and_leaves_the_old_ones(monkeypatch):
    before, wakeup = [signal.getsignal(number) for number in SIGNALS], signal.set_wakeup_fd
    monkeypatch.setattr(threading.Thread, "start", raising_first(threading.Thread.start, signal.SIGTERM))
    with pytest.raises(InterruptedBySignal, match="SIGTERM"), StopRequest():
        pytest.fail("the block is not entered")
    assert [signal.getsignal(number) for number in SIGNALS] == before
    assert wakeup(-1) == -1


def test_signal_that_comes_while_handlers_are_put_back_is_for_the_block_around(monkeypatch):
    def late():
        monkeypatch.setattr(signal, "signal", raising_first(signal.signal, signal.SIGUSR1))

    with StopRequest() as alone:
        late()
    assert alone.signum == signal.SIGUSR1
    monkeypatch.undo()
    with StopRequest() as outer:
        outer.listening = True
        with StopRequest() as inner:
            late()
        assert (inner.signum, outer.signum) == (signal.SIGUSR1, signal.SIGUSR1)
        monkeypatch.undo()

    def in_a_block_around():
        with StopRequest():
            late()
        pytest.fail("the outer block, which listens to nothing, goes on")

    with pytest.raises(InterruptedBySignal, match="SIGUSR1"), StopRequest():
        in_a_block_around()


def test_handlers_and_wakeup_are_put_back():
    before = [signal.getsignal(number) for number in SIGNALS]
    threads = threading.active_count()
    with StopRequest() as outer:
        during = [signal.getsignal(number) for number in SIGNALS]
        with StopRequest() as inner:
            inner.listening = True
            signal.raise_signal(signal.SIGTERM)
        assert inner
        assert not outer
        assert [signal.getsignal(number) for number in SIGNALS] == during
    assert [signal.getsignal(number) for number in SIGNALS] == before
    fd = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(fd)
    assert fd == -1
    end = time.monotonic() + 10
    while threading.active_count() > threads and time.monotonic() < end:
        time.sleep(0.01)
    assert threading.active_count() <= threads


def test_another_thread_can_hold_a_request_that_no_signal_reaches():
    found = []

    def hold():
        with StopRequest() as stop:
            found.append(bool(stop))

    thread = threading.Thread(target=hold)
    thread.start()
    thread.join()
    assert found == [False]


def wait_for(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def in_child(action):
    """Runs something in a copy of this process and returns its exit code."""
    pid = os.fork()
    if not pid:
        code = 99
        try:
            code = action()
        finally:
            os._exit(code)
    return wait_for(pid)


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_second_interrupt_ends_the_process_at_once(first):
    def interrupted_twice():
        with StopRequest() as stop:
            stop.listening = True
            signal.raise_signal(first)
            signal.raise_signal(signal.SIGINT)
            time.sleep(10)
        return 0

    assert in_child(interrupted_twice) == 130


def test_second_signal_of_another_kind_lets_the_save_end():
    def stopped_twice():
        with StopRequest() as stop:
            stop.listening = True
            signal.raise_signal(signal.SIGUSR1)
            signal.raise_signal(signal.SIGTERM)
            time.sleep(0.2)
        return 7

    assert in_child(stopped_twice) == 7


def test_signals_to_a_forked_worker_reach_neither_it_nor_this_process():
    with StopRequest() as stop:
        stop.listening = True

        def signalled():
            for number in (signal.SIGINT, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP):
                signal.raise_signal(number)
            return 5 if not stop else 6

        assert in_child(signalled) == 5
        assert in_child(lambda: signal.raise_signal(signal.SIGTERM)) == -signal.SIGTERM, "it can be terminated"
        time.sleep(0.05)
        assert not stop


def test_ctrl_c_that_also_reaches_a_worker_at_its_birth_is_one_to_this_process():
    code = (
        "import os\nfrom cvtrain.signals import StopRequest\nwith StopRequest() as stop:\n    stop.listening = True\n"
        "    print('ready', flush=True)\n    while not stop:\n"
        "        os.fork() or os._exit(0)\n        os.wait()\n    os._exit(7)"
    )
    rng = random.Random(0)
    for _ in range(12):
        command = [sys.executable, "-S", "-c", code]
        with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True, env=PATHS) as process:
            process.stdout.readline()
            time.sleep(rng.uniform(0.002, 0.03))
            os.killpg(process.pid, signal.SIGINT)
            assert process.wait(timeout=60) == 7


def test_hang_up_that_nohup_ignores_stays_ignored():
    code = (
        "import os, signal\nfrom cvtrain.signals import StopRequest\nsignal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "with StopRequest() as stop:\n    os.kill(os.getpid(), signal.SIGHUP)\n    print(stop.signum)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.returncode) == ("None\n", 0), done.stderr
