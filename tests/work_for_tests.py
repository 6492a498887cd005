"""Functions that worker processes of the tests import; and programs that a test starts, signals and kills."""

import hashlib
import multiprocessing
import os
import signal
import sys
import threading
import time

from cvtrain.errors import ConfigError, DataError, InterruptedBySignal
from cvtrain.signals import StopRequest
from cvtrain.workers import WorkItem, run_all


def add(shared, argument, *, post, stop):
    return shared + argument


def add_with_message(shared, argument, *, post, stop):
    post(("adding", argument))
    return shared + argument


def tell_times(shared, seconds, *, post, stop):
    post("start")
    start = time.monotonic()
    time.sleep(seconds)
    return start, time.monotonic()


def process_id(shared, seconds, *, post, stop):
    time.sleep(seconds)
    return os.getpid()


def describe_process(shared, argument, *, post, stop):
    heavy = [name for name in ("torch", "numpy", "hydra", "rich") if name in sys.modules]
    return os.environ["OMP_NUM_THREADS"], multiprocessing.get_start_method(), heavy


def count_threads_of_torch(shared, argument, *, post, stop):
    import torch

    return torch.get_num_threads()


def post_much(shared, count, *, post, stop):
    for number in range(count):
        post((number, "x" * 1000))
    return count


class LocalError(Exception):
    def __init__(self, *, code):
        super().__init__(f"code {code}")
        self.code = code


class Unreadable:
    def __reduce__(self):
        return int, ("no number",)


def fail(shared, kind, *, post, stop):
    if kind == "config":
        raise ConfigError(["a: wrong", "b: wrong"], hint="type c")
    if kind == "data":
        raise DataError("no image", hint="look")
    if kind == "signal":
        raise InterruptedBySignal("saved", signum=15, hint="resume")
    if kind == "file":
        os.stat("/no/such/file")
    if kind == "zero":
        return 1 / 0
    if kind == "keyword":
        raise LocalError(code=7)
    if kind == "unicode":
        b"\xff".decode()
    if kind == "lock in error":
        error = ValueError("locked")
        error.lock = threading.Lock()
        raise error
    if kind == "local class":

        class HereError(Exception):
            pass

        raise HereError("of here")
    if kind == "exit":
        sys.exit(3)
    return kind


def return_something(shared, kind, *, post, stop):
    if kind == "lock":
        return threading.Lock()
    if kind == "unreadable":
        return Unreadable()
    if kind == "post lock":
        post(threading.Lock())
    return kind


def die(shared, how, *, post, stop):
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "exit":
        os._exit(3)
    if how == "quiet exit":
        os._exit(0)
    if how == "with a child":
        child = os.fork()
        if child == 0:
            time.sleep(30)  # and keeps the worker's end of the pipe open
            os._exit(0)
        post(child)
        os.kill(os.getpid(), signal.SIGKILL)
    return how


def terminate_itself(shared, is_wanted, *, post, stop):
    if is_wanted:
        signal.raise_signal(signal.SIGTERM)
    time.sleep(0.2)
    return os.getpid()


def save_file_when_stopped(folder, name, *, post, stop):
    """`short` ends as soon as `long` runs, which goes on until it is stopped."""
    end = time.monotonic() + 60
    if name == "short":
        while not (folder / "long running").exists() and time.monotonic() < end:
            time.sleep(0.01)
        return
    stop.listening = True
    (folder / f"{name} running").touch()
    while not stop and time.monotonic() < end:
        time.sleep(0.01)
    (folder / f"{name} saved").touch()
    raise InterruptedBySignal("saved", signum=stop.signum)


def save_when_stopped(shared, argument, *, post, stop):
    """A loop that looks for a signal, and takes a moment to save."""
    stop.listening = True
    post(("pid", os.getpid()))
    end = time.monotonic() + 30
    while time.monotonic() < end:
        time.sleep(0.01)
        if stop:
            time.sleep(0.1)
            post(("saved", argument))
            raise InterruptedBySignal(f"saved {argument}", signum=stop.signum)
    return "was never stopped"


def never_look(shared, argument, *, post, stop):
    """A loop that claims to listen, and does not."""
    stop.listening = True
    post(("pid", os.getpid()))
    time.sleep(30)


def read_data(shared, argument, *, post, stop):
    """Something that takes long, in which a signal is raised."""
    post(("pid", os.getpid()))
    time.sleep(30)


def compute(shared, argument, *, post, stop):
    """One long call into C; it lets other threads run."""
    post(("pid", os.getpid()))
    hashlib.pbkdf2_hmac("sha256", b"a", b"b", 100_000_000)


# ------------------------------------------------------------------------------------------------------- programs


def say(*words):
    """Writes a line in one piece: several processes write to the same place."""
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def on_message(key, message):
    say("message", key, *message)


def main(function_name, count="4", slots="2", how=""):
    """Runs one of the functions, says what it hears, and ends with the exit code of a signal."""
    items = [WorkItem(f"item{i}", i) for i in range(int(count))]
    function = globals()[function_name]
    try:
        with StopRequest() as stop:
            say("main", os.getpid())
            results = run_all(function, items, shared=0, slots=int(slots), on_message=on_message, stop=stop)
            for result in results:
                say("result", result.key, result.value, type(result.error).__name__, result.lost)
                if how == "fail":
                    raise ZeroDivisionError("of the caller")
            if stop:
                raise InterruptedBySignal("stopped", signum=stop.signum)
    except InterruptedBySignal as error:
        say("end", error.exit_code)
        sys.exit(error.exit_code)
    say("end", 0)
