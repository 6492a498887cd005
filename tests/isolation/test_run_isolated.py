import contextlib
import fcntl
import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from cvtrain.isolation import Call, CallResult, Patience, Slot, WorkerStartError, process, run_isolated
from cvtrain.signals import StopRequest

FOLDER = Path(__file__).parent
ONE_THREAD = Slot(1, {"OMP_NUM_THREADS": "1"})


@pytest.fixture
def functions(monkeypatch):
    """The functions, which other processes find because they get the path of this one."""
    monkeypatch.setattr(sys, "path", [*sys.path, str(FOLDER)])
    import isolated_functions

    return isolated_functions


@pytest.fixture(autouse=True)
def no_process_is_left():
    before = children()
    yield
    assert children() <= before


def children():
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(path.read_text().rpartition(")")[2].split()[1]) == os.getpid():
                found.add(int(path.parent.name))
    return found


class Given:
    """Calls that are known before; and, now and then, none for a moment."""

    def __init__(self, calls):
        self.waiting = list(calls)
        self.asked_at = []

    def next_call(self):
        self.asked_at.append(time.monotonic())
        return self.waiting.pop(0) if self.waiting else None

    def is_over(self):
        return not self.waiting


@pytest.fixture
def run(tmp_path):
    """Runs a function once for each argument; the key of a call is the word for its argument."""

    def run(function, *arguments, source=None, slots=(ONE_THREAD, ONE_THREAD), on_message=None, **options):
        source = source or Given(Call(str(a), a, tmp_path / f"{a}.log") for a in arguments)
        with StopRequest() as stop:
            options = {"preload": [], "timeout_seconds": None, "stop": stop, **options}
            listener = on_message or (lambda key, message: False)
            yield from run_isolated(function, source, slots=slots, on_message=listener, **options)
            assert stop.listening is False, "as it was before"

    return lambda *words, **options: {result.key: result for result in run(*words, **options)}


def is_running(pid):
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def assert_gone(pids, *, seconds):
    end = time.monotonic() + seconds
    while any(is_running(int(pid)) for pid in pids):
        assert time.monotonic() < end, "processes are left"
        time.sleep(0.02)


# --------------------------------------------------------------------------------------------------- results, processes


def test_every_call_gives_its_result(functions, run):
    results = run(functions.double, *range(4))
    assert {key: (r.value, r.exit_code, r.error) for key, r in results.items()} == {
        str(i): (2 * i, 0, None) for i in range(4)
    }
    assert all(0 < r.seconds < 20 for r in results.values())


def test_every_call_has_a_process_of_its_own_that_is_like_a_fresh_one(functions, run, monkeypatch, tmp_path):
    monkeypatch.setenv("OF_DRIVER", "yes")
    monkeypatch.chdir(tmp_path)
    slot = Slot(1, {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "GPU-7"})
    with open(tmp_path / "lock", "w") as locked:
        fcntl.flock(locked, fcntl.LOCK_EX)
        os.set_inheritable(locked.fileno(), True)
        found = run(functions.describe_process, 1, 2, slots=[slot], preload=["numpy.random"])
    one, two = (result.value for result in found.values())
    assert len({one["pid"], two["pid"], os.getpid()}) == 3
    assert one["group"] == one["session"] == one["pid"]
    assert one["session of parent"] == one["parent"]
    of_server_alone = {"PYTORCH_NVML_BASED_CUDA_CHECK": None}
    assert one["environment"] == {**slot.environment, "OF_DRIVER": "yes", **of_server_alone}
    assert (one["folder"], one["arguments"], one["stdin"]) == (str(tmp_path), sys.argv, "")
    assert one["traces"]
    assert all(a != b for a, b in zip(one["random"], two["random"], strict=True))
    assert one["threads of parent"] == 1
    files = [*one["open files"], *one["open files of parent"]]
    assert str(tmp_path / "1.log") in files
    assert str(tmp_path / "lock") not in files


def test_threads_of_a_slot_hold_although_torch_is_loaded_before(functions, run):
    before = len(os.sched_getaffinity(0))
    slots = [Slot(1, {"OMP_NUM_THREADS": "1"}), Slot(3, {"OMP_NUM_THREADS": "3"})]
    found = run(functions.describe_torch, 1, 2, slots=slots, preload=["torch"])
    one, two = found["1"].value, found["2"].value
    assert (one["threads"], two["threads"]) == (1, 3), before
    assert (one["threads in use"], two["threads in use"]) == (1, 3)
    for described in (one, two):
        assert described["loaded before"]
        assert described["threads of parent"] == 1
        assert not described["cuda"]


def test_process_that_begins_without_a_copy_works_the_same(functions, run, monkeypatch):
    monkeypatch.setattr(process, "_COPIES", False)
    found = run(functions.describe_torch, 1, slots=[ONE_THREAD], preload=["torch"])["1"]
    assert found.error is None
    assert (found.value["loaded before"], found.value["threads in use"]) == (False, 1)
    results = run(functions.die, "crash", "raise", "none")
    assert [results[how].exit_code for how in ("crash", "raise", "none")] == [-11, 1, 0]


def test_as_many_run_at_a_time_as_there_are_slots(functions, run):
    spans = [result.value for result in run(functions.span, *[0.4 + i / 1000 for i in range(4)]).values()]
    at_once = [sum(begin <= start < end for begin, end in spans) for start, _ in spans]
    assert max(at_once) == 2
    assert at_once.count(2) >= 2


def test_source_is_asked_again_until_it_is_over(functions, run, tmp_path):
    class Late(Given):
        def next_call(self):
            self.asked_at.append(time.monotonic())
            return None if len(self.asked_at) in (2, 3) else self.waiting.pop(0) if self.waiting else None

    source = Late(Call(f"{i}", i, tmp_path / "log") for i in range(3))
    begin = time.monotonic()
    results = run(functions.double, source=source, slots=[ONE_THREAD], patience=Patience(ask_again_seconds=0.2))
    assert [result.value for result in results.values()] == [0, 2, 4]
    assert 0.15 < source.asked_at[2] - source.asked_at[1] < 1
    assert len(source.asked_at) < 10
    assert time.monotonic() - begin < 10


def test_source_hears_of_a_result_before_it_is_asked_for_more(functions, run, tmp_path):
    source = Given(Call(f"{i}", i, tmp_path / "log") for i in range(3))
    with StopRequest() as stop:
        results = run_isolated(
            functions.double,
            source,
            slots=[ONE_THREAD],
            preload=[],
            timeout_seconds=None,
            on_message=lambda key, message: False,
            stop=stop,
        )
        assert next(results).key == "0"
        assert len(source.waiting) == 2
        source.waiting.clear()
        assert list(results) == []


def test_nothing_to_do_needs_no_process(functions, run):
    assert run(functions.double, preload=["no_such_module"]) == {}


def test_no_slots_are_refused(functions, run):
    with pytest.raises(ValueError, match="at least one slot"):
        run(functions.double, 1, slots=[])


# ------------------------------------------------------------------------------------------------------- ways to die

ENDINGS = {
    "none": (0, None),
    "kill": (-9, "killed by signal 9 (SIGKILL)"),
    "crash": (-11, "segmentation fault: signal 11 (SIGSEGV)"),
    "abort": (-6, "aborted: signal 6 (SIGABRT)"),
    "exit at once": (3, "ended with exit code 3"),
    "exit at once without a word": (1, "ended without a result"),
    "exit": (4, "ended with exit code 4"),
    "exit without a code": (1, "ended without a result"),
    "exit with words": (1, "ended with exit code 1"),
    "real-time signal": (-signal.SIGRTMIN - 3, f"killed by signal {signal.SIGRTMIN + 3}"),
    "raise": (1, "KeyError: 'x'"),
    "raise lines": (1, "RuntimeError: first"),
    "raise ours": (3, "no image"),
    "recursion": (1, "RecursionError: maximum recursion depth exceeded"),
    "signal to itself": (143, "stopped by signal 15 (SIGTERM)"),
}


def test_each_way_to_die_is_told_in_words_and_harms_no_other(functions, run, tmp_path):
    heard = []
    results = run(functions.die, *ENDINGS, on_message=lambda key, message: heard.append(message))
    assert {key: (r.exit_code, r.error and r.error[:45]) for key, r in results.items()} == {
        key: (code, words and words[:45]) for key, (code, words) in ENDINGS.items()
    }
    assert {result.value for result in results.values()} == {"none", None}
    assert not any(result.is_asked_to_stop or result.is_timed_out for result in results.values())
    assert sorted(heard) == sorted(f"about to {how}" for how in ENDINGS)
    logs = {how: (tmp_path / f"{how}.log").read_text() for how in ENDINGS}
    assert "Fatal Python error: Segmentation fault" in logs["crash"]
    assert re.search(r"isolated_functions.py\", line \d+ in die", logs["crash"])
    assert "Fatal Python error: Aborted" in logs["abort"]
    assert "no more of this" in logs["exit with words"]
    assert 'raise KeyError("x")' in logs["raise"]
    assert "RuntimeError: first\nsecond" in logs["raise lines"]
    assert logs["none"] == logs["exit"] == ""


def test_log_holds_all_that_is_written_and_is_added_to(functions, run, tmp_path, monkeypatch):
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    path = tmp_path / "new" / "folder" / "log"
    source = Given(Call(f"{text}", text, path) for text in ("and go on", "and die"))
    run(functions.write, source=source, slots=[ONE_THREAD])
    rest = "raw out\nraw err\nof a child\nto stderr\n"
    assert path.read_text() == f"and go on\n{rest}and die\n{rest}"


def test_log_that_cannot_be_written_fails_its_call_alone(functions, run, tmp_path):
    (tmp_path / "file").touch()
    calls = [Call("bad", 1, tmp_path / "file" / "log"), Call("good", 2, tmp_path / "log")]
    results = run(functions.double, source=Given(calls))
    assert results["bad"].error == f"its log {tmp_path / 'file' / 'log'} cannot be written: File exists"
    assert (results["bad"].exit_code, results["good"].value) == (4, 4)


@pytest.mark.parametrize("how", ["kill", "exit", "return"])
def test_what_a_call_has_begun_ends_with_it(functions, run, how):
    pids = []
    run(functions.leave_a_child, how, on_message=lambda key, message: pids.extend(message))
    assert len(pids) == 2
    assert_gone(pids, seconds=1)


def test_process_that_does_not_leave_is_ended_and_its_result_kept(functions, run):
    result = run(functions.leave_a_thread, 1, patience=Patience(leave_seconds=0.3))["1"]
    assert (result.value, result.exit_code, result.error) == ("returned", 0, None)
    assert 0.3 <= result.seconds < 5


# ----------------------------------------------------------------------------------------------------------- messages


def test_thousands_of_messages_arrive_in_order_and_block_nothing(functions, run):
    heard = {"1500": [], "1501": []}
    run(functions.post_much, 1500, 1501, on_message=lambda key, message: heard[key].append(message[0]))
    assert heard == {"1500": list(range(1500)), "1501": list(range(1501))}


def test_messages_before_a_death_are_delivered(functions, run):
    heard = []
    result = run(functions.post_and_die, 300, on_message=lambda key, message: heard.append(message))["300"]
    assert result.exit_code == -9
    assert [message[0] for message in heard[:-1]] == list(range(300))
    assert heard[-1] == "y" * 3_000_000


@pytest.mark.long  # a machine that is busy enough takes minutes for it
def test_signals_cut_no_message_in_two(functions, run):
    heard = []
    result = run(functions.post_while_signals_come, 300, on_message=lambda key, message: heard.append(message))["300"]
    assert result.error is None
    assert result.value > 5, "signals that came while it posted"
    assert {len(text) for _, text in heard} == {100_000}
    numbers = [number for number, _ in heard]
    assert numbers == sorted(set(numbers))
    assert len(numbers) >= 300 - result.value


def test_half_a_message_hangs_nothing(functions, run):
    results = run(functions.post_half_a_frame, "kill", "sleep", timeout_seconds=1)
    assert (results["kill"].exit_code, results["sleep"].is_timed_out) == (-9, True)
    assert results["sleep"].seconds < 10


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("post lock", "TypeError: cannot pickle '_thread.lock' object"),
        ("return lock", "what it returned cannot be sent: TypeError: cannot pickle '_thread.lock' object"),
        ("post unreadable", "what it posted cannot be read: ValueError: invalid literal for int"),
        ("return unreadable", "what it returned cannot be read: ValueError: invalid literal for int"),
    ],
)
def test_what_cannot_cross_is_told_in_words(functions, run, what, words):
    results = run(functions.say_what_cannot_cross, what, "fine")
    assert results[what].error.startswith(words)
    assert results[what].exit_code == 1
    assert results["fine"].value == "fine"


def test_copy_of_a_call_cannot_post(functions, run):
    assert run(functions.post_from_a_copy, 1)["1"].value == 7


def test_error_in_taking_a_message_reaches_the_caller_and_ends_all(functions, run, tmp_path):
    pids = []

    def refuse(key, message):
        pids.append(message)
        raise ZeroDivisionError("of the listener")

    with pytest.raises(ZeroDivisionError, match="of the listener"):
        run(functions.save_when_stopped, tmp_path, on_message=refuse)
    assert (tmp_path / f"saved {pids[0]}").exists()
    assert_gone(pids, seconds=0)


# ------------------------------------------------------------------------------------------------------ stop, time out


def test_listener_stops_one_call_which_saves(functions, run, tmp_path):
    source = Given([Call("long", tmp_path, tmp_path / "log"), Call("other", tmp_path, tmp_path / "log")])
    results = run(functions.save_and_return, source=source, slots=[ONE_THREAD], on_message=lambda key, message: True)
    assert [(r.value, r.exit_code, r.is_asked_to_stop) for r in results.values()] == [("saved", 0, True)] * 2
    assert len(list(tmp_path.glob("saved *"))) == 2


def test_signal_stops_all_and_starts_no_more(functions, run, tmp_path):
    source = Given(Call(f"{i}", tmp_path, tmp_path / "log") for i in range(4))
    heard = []

    def hear(key, message):
        heard.append(key)
        if len(heard) == 2:
            signal.raise_signal(signal.SIGUSR1)

    results = run(functions.save_when_stopped, source=source, on_message=hear)
    assert {(r.exit_code, r.error, r.is_asked_to_stop) for r in results.values()} == {(143, "saved", True)}
    assert len(results) == len(list(tmp_path.glob("saved *"))) == 2
    assert len(source.waiting) == 2


def test_signal_before_a_call_takes_signals_over_ends_it_in_words(functions, run):
    result = run(functions.wait_for_a_signal, 1, on_message=lambda key, message: True)["1"]
    assert (result.exit_code, result.error) == (143, "stopped by signal 15 (SIGTERM)")


def test_signal_as_a_call_begins_ends_it_in_words(functions, run, tmp_path):
    class Stopping(Given):
        def next_call(self):
            if len(self.waiting) == 1:
                signal.raise_signal(signal.SIGTERM)  # the first has begun within the last millisecond
            return super().next_call()

    source = Stopping(Call(f"{i}", i, tmp_path / "log") for i in range(2))
    (result,) = run(functions.wait_for_a_signal, source=source).values()
    assert (result.exit_code, result.error) == (143, "stopped by signal 15 (SIGTERM)")


def test_signal_while_the_server_begins_ends_all_soon(functions, run, tmp_path):
    begin = time.monotonic()
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()
    (tmp_path / "slow_module.py").write_text("import time; time.sleep(20)")
    sys.path.append(str(tmp_path))
    try:
        assert run(functions.double, 1, preload=["slow_module"]) == {}
    finally:
        sys.path.remove(str(tmp_path))
    assert time.monotonic() - begin < 5


def test_call_that_does_not_stop_is_ended_by_force_and_all_it_has_begun(functions, run, tmp_path):
    pids = []

    def hear(key, message):
        pids.extend(message)
        return True

    (result,) = run(functions.never_stop, tmp_path, on_message=hear, patience=Patience(stop_seconds=0.4)).values()
    assert (result.exit_code, result.is_asked_to_stop) == (-9, True)
    assert result.error == "asked to stop, it did not within 0.4 s, and was ended by force"
    assert_gone(pids, seconds=1)


def test_driver_that_waits_for_calls_to_stop_takes_no_time_of_a_core(functions, run, tmp_path):
    def hear(key, message):
        signal.raise_signal(signal.SIGTERM)
        times.append(time.process_time())

    times = []
    run(functions.never_stop, tmp_path, on_message=hear, patience=Patience(stop_seconds=0.6))
    assert time.process_time() - times[0] < 0.2


def test_call_that_takes_too_long_is_asked_to_stop_and_may_save(functions, run, tmp_path):
    results = run(functions.save_and_return, tmp_path, timeout_seconds=0.5)
    (result,) = results.values()
    assert (result.value, result.is_timed_out, result.is_asked_to_stop) == ("saved", True, False)
    assert result.error == "timed out after 0.5 s"
    assert 0.5 <= result.seconds < 5


def test_call_that_takes_too_long_and_does_not_stop_is_ended(functions, run, tmp_path):
    pids = []
    results = run(
        functions.never_stop,
        tmp_path,
        timeout_seconds=0.5,
        patience=Patience(timeout_seconds=0.3),
        on_message=lambda key, message: pids.extend(message),
    )
    (result,) = results.values()
    assert (result.exit_code, result.is_timed_out, result.error) == (-9, True, "timed out after 0.5 s")
    assert 0.8 <= result.seconds < 5
    assert_gone(pids, seconds=1)


def test_generator_that_is_closed_lets_calls_save_and_leaves_no_process(functions, tmp_path):
    heard = []
    with StopRequest() as stop:
        results = run_isolated(
            functions.save_when_stopped,
            Given([Call("broken", tmp_path / "none", tmp_path / "log"), Call("long", tmp_path, tmp_path / "log")]),
            slots=[ONE_THREAD, ONE_THREAD],
            preload=[],
            timeout_seconds=None,
            on_message=lambda key, pid: heard.append(pid) or key == "broken",
            stop=stop,
        )
        assert next(results).error.startswith("FileNotFoundError")
        results.close()
        assert not stop
        assert stop.listening is False
    assert len(list(tmp_path.glob("saved *"))) == 1
    assert_gone(heard, seconds=0)


# -------------------------------------------------------------------------------------------------- what cannot begin


def test_module_that_cannot_be_loaded_is_told(functions, run):
    with pytest.raises(WorkerStartError, match="cannot load no_such_module: ModuleNotFoundError: No module named 'no_"):
        run(functions.double, 1, preload=["no_such_module"])


def test_server_that_dies_as_it_begins_is_told(functions, run, tmp_path, monkeypatch):
    (tmp_path / "fatal_module.py").write_text("import os; os._exit(7)")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(WorkerStartError, match="the process that begins them ended with exit code 7"):
        run(functions.double, 1, preload=["fatal_module"])


def test_function_that_another_process_does_not_find_is_told(run, monkeypatch):
    module = type(sys)("module_that_only_this_process_has")
    exec("def double(argument, *, post): return 0", module.__dict__)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    with pytest.raises(WorkerStartError, match=r"not found in another process: ModuleNotFoundError: .*only_this_pro"):
        run(module.double, *range(50))


def test_argument_that_cannot_be_sent_is_named(functions, run, tmp_path):
    with pytest.raises(TypeError, match="cannot pickle") as raised:
        run(functions.double, source=Given([Call("bad", threading.Lock(), tmp_path / "log")]))
    assert raised.value.__notes__ == ["the argument of bad cannot be sent to another process"]


def test_argument_that_cannot_be_read_fails_its_call_alone(functions, run, tmp_path):
    calls = [Call("bad", functions.Unreadable(), tmp_path / "log"), Call("good", 2, tmp_path / "log")]
    results = run(functions.double, source=Given(calls))
    assert results["bad"].error.startswith("ValueError: invalid literal")
    assert results["good"].value == 4


def test_process_that_the_machine_does_not_give_is_told_in_words(functions, run, tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)

    class Exhausting(Given):
        def next_call(self):
            os.close(free := os.dup(0))
            resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))
            return super().next_call()

    try:
        with pytest.raises(WorkerStartError, match=r"no process can be begun: Too many open files"):
            run(functions.double, source=Exhausting([Call("1", 1, tmp_path / "log")]))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_server_that_is_killed_costs_no_call_and_is_begun_again(functions, run):
    heard = []
    results = run(
        functions.kill_the_server,
        "kill",
        "second",
        "third",
        slots=[ONE_THREAD],
        on_message=lambda key, message: heard.append(message),
    )
    assert [(r.key, r.value, r.error) for r in results.values()] == [(w, w, None) for w in ("kill", "second", "third")]
    assert heard == ["after the server's death"]


def test_death_that_nobody_saw_is_a_failure_in_words(functions, run):
    pids = []
    result = run(functions.kill_the_server_and_die, 1, on_message=lambda key, pid: pids.append(pid))["1"]
    assert_gone(pids, seconds=1)
    assert result == CallResult(
        "1",
        exit_code=1,
        error="ended, nobody knows how: the process that had begun it was killed",
        seconds=result.seconds,
    )


# ------------------------------------------------------------------------------------------- drivers that are signalled


class Driver:
    """A program that runs a function three times, two at a time, in a session of its own."""

    def __init__(self, function, folder, *, stop_seconds=60):
        self.folder = folder
        path = str(FOLDER / "driver_for_tests.py")
        self.process = subprocess.Popen(
            [sys.executable, path, function, str(folder), str(stop_seconds)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.said = []

    def pids(self):
        """Waits until both calls have said their numbers; returns those and that of the server."""
        while len(self.said) < 3:
            line = self.process.stdout.readline()
            assert line, self.process.stderr.read()
            self.said.append(line.strip())
        pids = [int(number) for line in self.said[1:] for number in re.findall(r"\d+", line)]
        server = int(Path(f"/proc/{pids[0]}/stat").read_text().rpartition(")")[2].split()[1])
        assert server != self.process.pid
        return [*pids, server]

    def end(self):
        out, errors = self.process.communicate(timeout=25)
        self.said += out.splitlines()
        assert errors == ""
        return self.process.returncode

    def saved(self):
        return len(list(self.folder.glob("saved *")))


@pytest.fixture
def start(tmp_path):
    drivers = []

    def begin(*words, **options):
        drivers.append(Driver(*words, tmp_path, **options))
        return drivers[-1]

    yield begin
    for driver in drivers:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(driver.process.pid, signal.SIGKILL)
        driver.process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_signal_to_the_group_of_the_driver_stops_the_calls_once(start, number):
    driver = start("save_when_stopped")
    pids = driver.pids()
    os.killpg(driver.process.pid, number)
    assert driver.end() == 0
    assert sorted(driver.said[3:]) == [f"end {int(number)}", *(f"result call{i} 143 True saved" for i in (0, 1))]
    assert driver.saved() == 2
    assert_gone(pids, seconds=0)


def test_calls_of_a_driver_that_is_killed_save_and_end(start):
    driver = start("save_when_stopped")
    pids = driver.pids()
    driver.process.kill()
    assert_gone(pids, seconds=10)
    assert driver.saved() == 2


@pytest.mark.parametrize("function", ["never_stop", "hold_the_interpreter"])
def test_calls_of_a_driver_that_is_killed_are_ended_if_they_do_not(start, function):
    driver = start(function, stop_seconds=0.5)
    pids = driver.pids()
    driver.process.kill()
    assert_gone(pids, seconds=10)


def test_calls_end_where_driver_and_server_are_killed(start):
    driver = start("never_stop", stop_seconds=0.5)
    pids = driver.pids()
    os.kill(pids[-1], signal.SIGKILL)
    driver.process.kill()
    assert_gone(pids, seconds=10)


def test_second_interrupt_ends_the_driver_at_once_and_the_calls_a_little_later(start):
    driver = start("never_stop", stop_seconds=1.5)
    pids = driver.pids()
    begin = time.monotonic()
    driver.process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert driver.process.poll() is None
    driver.process.send_signal(signal.SIGINT)
    assert driver.process.wait(10) == 130
    assert time.monotonic() - begin < 1.4
    assert_gone(pids, seconds=10)
