import contextlib
import importlib
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from multiprocessing import resource_tracker
from pathlib import Path

import pytest

from cvtrain.errors import ConfigError, DataError, InterruptedBySignal
from cvtrain.signals import StopRequest
from cvtrain.workers import UnexpectedError, WorkerStartError, WorkItem, WorkResult, run_all

TESTS_DIR = Path(__file__).parent


@pytest.fixture
def work(monkeypatch):
    """The functions for workers, which find them because a worker gets the path of its parent."""
    monkeypatch.setattr(sys, "path", [*sys.path, str(TESTS_DIR)])
    monkeypatch.delattr(sys.modules["__main__"], "__file__", raising=False)  # pytest, which no worker needs to load
    return importlib.import_module("work_for_tests")


@pytest.fixture(autouse=True)
def no_process_is_left():
    yield
    assert multiprocessing.active_children() == []


def items_of(*arguments, slots=1):
    return [WorkItem(f"item{i}", argument, slots=slots) for i, argument in enumerate(arguments)]


def results_of(function, items, *, slots=2, shared=0, on_message=lambda key, message: None):
    with StopRequest() as stop:
        found = list(run_all(function, items, shared=shared, slots=slots, on_message=on_message, stop=stop))
        assert stop.listening is False, "as it was before"
    return found


def by_key(results):
    return {result.key: result for result in results}


# ------------------------------------------------------------------------------------------------------------ results


@pytest.mark.parametrize("slots", [1, 2])
def test_every_item_gives_its_result_and_its_messages(work, slots):
    heard = []
    results = results_of(
        work.add_with_message,
        items_of(*range(20)),
        shared=100,
        slots=slots,
        on_message=lambda key, message: heard.append((key, message)),
    )
    assert sorted(results, key=lambda result: result.value) == [WorkResult(f"item{i}", i + 100) for i in range(20)]
    assert sorted(heard) == sorted((f"item{i}", ("adding", i)) for i in range(20))


def test_few_processes_do_many_items(work):
    processes = {result.value for result in results_of(work.process_id, items_of(*[0.05] * 8))}
    assert len(processes) == 2
    assert os.getpid() not in processes


def test_no_more_processes_start_than_there_are_items(work):
    assert len({result.value for result in results_of(work.process_id, items_of(0.2, 0.2), slots=8)}) == 2


@pytest.mark.parametrize(("count", "slots"), [(3, 1), (1, 4)])
def test_one_slot_or_one_item_needs_no_other_process(work, count, slots):
    results = results_of(work.process_id, items_of(*[0] * count), slots=slots)
    assert [result.value for result in results] == [os.getpid()] * count


def test_nothing_to_do_is_done_at_once(work):
    assert results_of(work.add, []) == []


@pytest.mark.parametrize(("slots", "of_item"), [(0, 1), (2, 0)])
def test_work_without_cores_is_refused(work, slots, of_item):
    with pytest.raises(ValueError, match="at least one slot"):
        results_of(work.add, items_of(1, 2, slots=of_item), slots=slots)


# ---------------------------------------------------------------------------------------------------------- the cores


def test_items_start_in_order_and_one_that_fits_overtakes_one_that_waits(work):
    started = []
    items = [WorkItem("a", 0.4), WorkItem("wide", 0.1, slots=2), WorkItem("b", 0.05), WorkItem("c", 0.05)]
    results = results_of(work.tell_times, items, on_message=lambda key, _: started.append(key))
    assert started[-1] == "wide"
    assert started.index("b") < started.index("c")
    wide = by_key(results)["wide"].value
    for key in "abc":
        start, end = by_key(results)[key].value
        assert end <= wide[0] or start >= wide[1], f"{key} ran beside an item that takes all cores"


def test_cores_in_use_are_never_more_than_there_are(work):
    items = [WorkItem(f"{i}", 0.1, slots=slots) for i, slots in enumerate([2, 1, 1, 9, 3, 1, 2, 1])]
    spans = [
        (*result.value, min(items[int(result.key)].slots, 3)) for result in results_of(work.tell_times, items, slots=3)
    ]
    assert len(spans) == len(items)
    in_use = [sum(cores for begin, end, cores in spans if begin <= start < end) for start, _, _ in spans]
    assert max(in_use) == 3


def test_item_may_use_as_many_threads_as_it_has_slots(work):
    items = [WorkItem("one", 0), WorkItem("two", 0, slots=2), WorkItem("all", 0, slots=9)]
    results = by_key(results_of(work.describe_process, items, slots=3))
    assert {key: result.value[0] for key, result in results.items()} == {"one": "1", "two": "2", "all": "3"}


@pytest.mark.parametrize("slots", [1, 2])
def test_torch_is_limited_too_and_this_process_is_left_as_it_was(work, slots, monkeypatch):
    import torch

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        items = [WorkItem("one", 0), WorkItem("all", 0, slots=9)]  # one after the other, in one worker
        results = by_key(results_of(work.count_threads_of_torch, items, slots=slots))
        assert {key: result.value for key, result in results.items()} == {"one": 1, "all": slots}
        assert torch.get_num_threads() == 4
        assert "OMP_NUM_THREADS" not in os.environ
    finally:
        torch.set_num_threads(before)


def test_worker_begins_processes_of_its_own_as_its_parent_does(work):
    found = {result.value[1] for result in results_of(work.describe_process, items_of(0, 0))}
    assert found == {multiprocessing.get_start_method()}


# ----------------------------------------------------------------------------------------------------------- messages


def test_thousands_of_messages_arrive_in_order_and_block_nothing(work):
    heard = {"item0": [], "item1": []}
    results = results_of(
        work.post_much, items_of(2000, 2000), on_message=lambda key, message: heard[key].append(message[0])
    )
    assert [result.value for result in results] == [2000, 2000]
    assert heard["item0"] == heard["item1"] == list(range(2000))


def test_signal_while_a_message_is_taken_waits_until_it_is(work):
    heard = []

    def take(key, message):
        signal.raise_signal(signal.SIGTERM)
        heard.append(key)

    results = results_of(work.add_with_message, items_of(1, 2), slots=1, on_message=take)
    assert heard == ["item0"]
    assert [type(result.error) for result in results] == [InterruptedBySignal]


@pytest.mark.parametrize("slots", [1, 2])
def test_error_in_taking_a_message_reaches_the_caller_as_it_is(work, slots):
    cause = KeyError("cause")

    def refuse(key, message):
        raise ZeroDivisionError("of the listener") from cause

    with pytest.raises(ZeroDivisionError, match="of the listener") as raised:
        results_of(work.add_with_message, items_of(1, 2, 3), slots=slots, on_message=refuse)
    assert raised.value.__cause__ is cause


# ------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize("slots", [1, 2])
def test_errors_arrive_as_they_were_raised(work, slots):
    kinds = ["config", "data", "signal", "file", "zero", "keyword", "fine"]
    results = results_of(work.fail, [WorkItem(kind, kind) for kind in kinds], slots=slots)
    found = {key: result.error for key, result in by_key(results).items()}
    assert found.pop("fine") is None
    assert {key: type(error) for key, error in found.items()} == {
        "config": ConfigError,
        "data": DataError,
        "signal": InterruptedBySignal,
        "file": FileNotFoundError,
        "zero": ZeroDivisionError,
        "keyword": work.LocalError,
    }
    assert (found["config"].problems, found["config"].hint) == (["a: wrong", "b: wrong"], "type c")
    assert (found["data"].lines(), found["data"].exit_code) == (["no image", "look"], 3)
    assert (found["signal"].message, found["signal"].hint, found["signal"].exit_code) == ("saved", "resume", 143)
    assert "/no/such/file" in str(found["file"])
    assert (str(found["keyword"]), found["keyword"].code) == ("code 7", 7)


def test_error_of_a_worker_tells_where_it_was_raised(work):
    results = results_of(work.fail, items_of("zero", "zero"))
    assert "in fail\n    return 1 / 0" in "".join(results[0].error.__notes__)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("unicode", "UnicodeDecodeError: 'utf-8' codec can't decode byte 0xff"),
        ("lock in error", "ValueError: locked"),
        ("local class", "HereError: of here"),
        ("exit", "SystemExit: 3"),
    ],
)
def test_error_that_cannot_cross_arrives_in_words(work, kind, words):
    results = by_key(results_of(work.fail, [WorkItem("bad", kind), WorkItem("good", "good")]))
    assert type(results["bad"].error) is UnexpectedError
    assert str(results["bad"].error).startswith(words)
    assert "Traceback (most recent call last)" in results["bad"].error.__notes__[-1]
    assert results["good"] == WorkResult("good", "good")


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("lock", "what it returned cannot be sent: TypeError: cannot pickle '_thread.lock' object"),
        ("unreadable", "what it sent cannot be read: ValueError: invalid literal for int"),
        ("post lock", "cannot pickle '_thread.lock' object"),
    ],
)
def test_value_or_message_that_cannot_cross_is_told_in_words(work, kind, words):
    results = by_key(results_of(work.return_something, [WorkItem("bad", kind), *items_of(*range(4))]))
    assert str(results.pop("bad").error).startswith(words)
    assert [results[f"item{i}"].value for i in range(4)] == [0, 1, 2, 3]


def test_argument_that_a_worker_cannot_read_fails_its_item_alone(work):
    results = by_key(results_of(work.add, [WorkItem("bad", work.Unreadable()), *items_of(1, 2)]))
    assert str(results["bad"].error).startswith("ValueError: invalid literal for int")
    assert [results["item0"].value, results["item1"].value] == [1, 2]


def test_what_cannot_be_sent_is_named(work):
    with pytest.raises(TypeError, match="cannot pickle") as raised:
        results_of(work.add, items_of(1, threading.Lock()))
    assert raised.value.__notes__ == ["the argument of item1 cannot be sent to a worker process"]
    with pytest.raises(TypeError, match="cannot pickle") as raised:
        results_of(work.add, items_of(1, 2), shared=threading.Lock())
    assert "what all items share" in raised.value.__notes__[0]


def test_sys_exit_ends_an_item_and_not_this_process(work):
    results = results_of(work.fail, items_of("exit", "fine"), slots=1)
    assert str(results[0].error) == "SystemExit: 3"
    assert results[1].value == "fine"


# ------------------------------------------------------------------------------------------------------- dead workers


@pytest.mark.parametrize(("how", "exit_code"), [("kill", -9), ("exit", 3), ("quiet exit", 0)])
def test_item_of_a_worker_that_dies_is_lost_and_the_others_go_on(work, how, exit_code):
    results = by_key(results_of(work.die, [WorkItem("bad", how), *items_of(*range(6))]))
    assert results.pop("bad") == WorkResult("bad", lost=exit_code)
    assert sorted(result.value for result in results.values()) == list(range(6))


def test_death_of_a_worker_is_noticed_although_its_child_keeps_the_pipe_open(work):
    children, start = [], time.monotonic()
    items = [WorkItem("bad", "with a child"), *items_of(1, 2)]
    results = by_key(results_of(work.die, items, on_message=lambda key, child: children.append(child)))
    assert results["bad"] == WorkResult("bad", lost=-9)
    assert is_running(children[0])
    os.kill(children[0], signal.SIGKILL)
    assert time.monotonic() - start < 20


def test_all_items_may_be_lost(work):
    assert {result.lost for result in results_of(work.die, items_of(*["kill"] * 4))} == {-9}


def test_signal_to_one_worker_interrupts_its_item_alone(work):
    results = results_of(work.terminate_itself, items_of(True, *[False] * 6))
    errors = {key: result.error for key, result in by_key(results).items()}
    interruption = errors.pop("item0")
    assert isinstance(interruption, InterruptedBySignal)
    assert interruption.exit_code == 143
    assert set(errors.values()) == {None}


def test_function_that_a_worker_does_not_find_ends_all_with_the_reason(work, monkeypatch):
    module = type(sys)("module_that_only_this_process_has")
    exec("def add(shared, argument, *, post, stop): return 0", module.__dict__)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    with pytest.raises(WorkerStartError, match=r"cannot begin: ModuleNotFoundError: .*that_only_this_process_has"):
        results_of(module.add, items_of(*range(50)))


def test_worker_that_dies_before_it_begins_is_not_tried_again_and_again(work, tmp_path, monkeypatch):
    program = tmp_path / "program.py"  # what a worker loads as the main module of its parent
    program.write_text("import os; os._exit(7)")
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(program), raising=False)
    with pytest.raises(WorkerStartError, match="ended with exit code 7 before it could begin"):
        results_of(work.add, items_of(*range(50)))


def test_process_that_the_machine_does_not_give_is_told_in_words(work):
    resource_tracker.ensure_running()
    with StopRequest() as stop:
        results = run_all(work.add, items_of(1, 2), shared=0, slots=2, on_message=None, stop=stop)
        os.close(free := os.dup(0))
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))
        try:
            with pytest.raises(WorkerStartError, match=r"no worker process can be begun: .*Too many open files"):
                next(results)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)


# ------------------------------------------------------------------------------------------------------- leaving early


def test_generator_that_is_closed_lets_workers_save_and_leaves_no_process(work, tmp_path):
    items = [WorkItem(name, name) for name in ("short", "long", "not begun")]
    with StopRequest() as stop:
        results = run_all(
            work.save_file_when_stopped,
            items,
            shared=tmp_path,
            slots=2,
            on_message=lambda key, message: None,
            stop=stop,
        )
        assert next(results).key == "short"
        results.close()
        assert multiprocessing.active_children() == []
        assert (tmp_path / "long saved").exists()
        assert not stop
        assert stop.listening is False


def test_worker_that_will_not_stop_is_ended_by_force(work, monkeypatch):
    monkeypatch.setattr("cvtrain.workers.crew._GRACE_SECONDS", 0.3)
    pids = []

    def take(key, message):
        pids.append(message[1])
        if len(pids) == 2:
            raise ZeroDivisionError

    start = time.monotonic()
    with pytest.raises(ZeroDivisionError):
        results_of(work.never_look, items_of(1, 2, 3), on_message=take)
    assert time.monotonic() - start < 20
    assert not any(is_running(pid) for pid in pids)


def is_running(pid):
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


# ------------------------------------------------------------------------------------------- programs, signals, ends


PROGRAM = f"""
import sys
sys.path.append({str(TESTS_DIR)!r})
from cvtrain.cli import main  # as the console script does
import work_for_tests
work_for_tests.say("loaded", __name__)
if __name__ == "__main__":
    work_for_tests.main(*sys.argv[1:])
"""


class Program:
    """A program with workers, in a session of its own."""

    def __init__(self, *words, command=None, program=PROGRAM, **options):
        path = options.pop("cwd") / "program.py"
        path.write_text(program)
        self.process = subprocess.Popen(
            [*(command or [sys.executable, str(path)]), *map(str, words)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            **{"cwd": path.parent, "stdin": subprocess.DEVNULL, **options},
        )
        self.said = []

    def wait_for(self, word):
        """Waits for a line in which a word stands; returns the last word of that line."""
        while line := self.process.stdout.readline():
            self.said.append(line.strip())
            if word in line.split():
                return line.split()[-1]
        raise AssertionError(self.process.stderr.read())

    def pids(self, count):
        """Waits until so many workers have said their numbers."""
        return [int(self.wait_for("pid")) for _ in range(count)]

    def end(self, *, timeout=25):
        """Waits for the end; returns the exit code and all that was said."""
        out, self.errors = self.process.communicate(timeout=timeout)
        self.said += out.split("\n")
        return self.process.returncode


@pytest.fixture
def start(tmp_path):
    programs = []

    def begin(*words, **options):
        programs.append(Program(*words, cwd=tmp_path, **options))
        return programs[-1]

    yield begin
    for program in programs:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(program.process.pid, signal.SIGKILL)
        program.process.communicate()


def assert_gone(pids, *, seconds):
    end = time.monotonic() + seconds
    while any(is_running(pid) for pid in pids):
        assert time.monotonic() < end, "workers are left"
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_signal_to_the_program_alone_stops_its_workers_which_save(start, number):
    program = start("save_when_stopped")
    pids = program.pids(2)
    os.kill(program.process.pid, number)
    assert program.end() == 128 + number
    assert program.errors == ""
    assert {line for line in program.said if "saved" in line} == {
        "message item0 saved 0",
        "message item1 saved 1",
    }
    assert sorted(line for line in program.said if line.startswith("result")) == [
        f"result item{i} None InterruptedBySignal None" for i in (0, 1)
    ]
    assert_gone(pids, seconds=0)


def test_interrupt_of_the_whole_group_stops_the_workers_once(start):
    program = start("save_when_stopped")
    pids = program.pids(2)
    os.killpg(program.process.pid, signal.SIGINT)
    assert program.end() == 130
    assert program.errors == ""
    assert sum("saved" in line for line in program.said) == 2
    assert_gone(pids, seconds=0)


def test_interrupt_while_a_worker_reads_data_is_raised_there(start):
    program = start("read_data")
    program.pids(2)
    begin = time.monotonic()
    os.killpg(program.process.pid, signal.SIGINT)
    assert program.end() == 130
    assert time.monotonic() - begin < 15
    assert program.errors == ""
    assert sum("InterruptedBySignal" in line for line in program.said) == 2


@pytest.mark.parametrize("delay_seconds", [0.0, 0.05, 0.1, 0.2])
def test_interrupt_while_workers_begin_shows_no_traceback(start, delay_seconds):
    program = start("read_data")
    program.wait_for("main")
    time.sleep(delay_seconds)
    os.killpg(program.process.pid, signal.SIGINT)
    assert program.end() == 130, program.errors
    assert program.errors == ""


def test_interrupt_while_workers_begin_slowly_is_not_taken_for_two(start):
    program = start("read_data", program=PROGRAM + "elif __name__ == '__mp_main__': import time; time.sleep(1.5)")
    program.wait_for("main")
    time.sleep(0.2)
    os.killpg(program.process.pid, signal.SIGINT)
    assert program.end() == 130
    assert program.errors == ""
    assert sum("InterruptedBySignal" in line for line in program.said) == 2


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_second_interrupt_ends_everything_at_once(start, first):
    program = start("never_look")
    pids = program.pids(2)
    os.kill(program.process.pid, first) if first == signal.SIGTERM else os.killpg(program.process.pid, first)
    time.sleep(0.5)
    assert program.process.poll() is None
    os.killpg(program.process.pid, signal.SIGINT)
    assert program.end() == 130
    assert_gone(pids, seconds=4)


@pytest.mark.parametrize("function", ["never_look", "compute"])
def test_workers_do_not_outlive_a_program_that_is_killed(start, function):
    program = start(function)
    pids = program.pids(2)
    program.process.kill()
    assert_gone(pids, seconds=4)
    program.end()


def test_program_that_fails_between_two_results_ends(start):
    program = start("die", 8, 2, "fail")  # its traceback keeps the generator alive until the interpreter ends
    assert program.end() == 1
    assert "ZeroDivisionError: of the caller" in program.errors


def test_signal_stops_work_that_is_done_in_the_program_itself(start):
    program = start("save_when_stopped", 3, 1)
    program.pids(1)
    os.kill(program.process.pid, signal.SIGTERM)
    assert program.end() == 143
    assert [line for line in program.said if line.startswith(("result", "end"))] == [
        "result item0 None InterruptedBySignal None",
        "end 143",
    ]


# ------------------------------------------------------------------------------------------------- ways to be started


@pytest.mark.parametrize(("words", "loaded_again"), [(["-m", "package"], 0), (["console-script"], 2)])
def test_workers_do_not_run_the_program_again_nor_load_what_is_heavy(start, tmp_path, words, loaded_again):
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").touch()
    (tmp_path / "package" / "__main__.py").write_text(PROGRAM)
    (tmp_path / "console-script").write_text(PROGRAM)
    program = start("describe_process", command=[sys.executable, *words])
    assert program.end() == 0, program.errors
    assert sum(line.startswith("main ") for line in program.said) == 1
    assert program.said.count("loaded __main__") == 1
    assert program.said.count("loaded __mp_main__") == loaded_again
    value = ("1", multiprocessing.get_start_method(), [])
    assert sorted(line for line in program.said if line.startswith("result")) == [
        f"result item{i} {value} NoneType None" for i in range(4)
    ]


@pytest.mark.parametrize("closed", ["<&-", "<&- >/dev/null 2>&1", "<&- 2>&-"])
def test_program_without_standard_streams_works(start, closed):
    program = start("add", command=["sh", "-c", f'"{sys.executable}" program.py "$@" {closed}', "sh"])
    assert program.end() == 0, program.errors
    if ">/dev/null" not in closed:
        assert [line for line in program.said if line.startswith("result")]
