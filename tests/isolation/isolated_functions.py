"""Functions that processes of the tests import; and a program that a test starts, signals and kills."""

import ctypes
import faulthandler
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from cvtrain.errors import DataError, InterruptedBySignal
from cvtrain.isolation import Call, Patience, Slot, run_isolated
from cvtrain.signals import StopRequest

NAMES = ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "OF_DRIVER", "PYTORCH_NVML_BASED_CUDA_CHECK")


def double(number, *, post):
    return 2 * number


def describe_process(argument, *, post):
    import numpy as np

    return {
        "pid": os.getpid(),
        "parent": os.getppid(),
        "group": os.getpgid(0),
        "session": os.getsid(0),
        "session of parent": os.getsid(os.getppid()),
        "environment": {name: os.environ.get(name) for name in NAMES},
        "folder": os.getcwd(),
        "arguments": sys.argv,
        "stdin": sys.stdin.read(),
        "open files": open_files("self"),
        "open files of parent": open_files(os.getppid()),
        "threads of parent": len(os.listdir(f"/proc/{os.getppid()}/task")),
        "random": (random.random(), np.random.random()),
        "traces": faulthandler.is_enabled(),
    }


def open_files(pid):
    return [read_link(f"/proc/{pid}/fd/{number}") for number in os.listdir(f"/proc/{pid}/fd")]


def read_link(path):
    try:
        return os.readlink(path)
    except OSError:
        return ""


def describe_torch(argument, *, post):
    loaded_before = "torch" in sys.modules
    import torch

    return {
        "loaded before": loaded_before,
        "threads": torch.get_num_threads(),
        "threads in use": threads_in_use(torch),
        "threads of parent": len(os.listdir(f"/proc/{os.getppid()}/task")),
        "cuda": torch.cuda.is_initialized() or torch._C._cuda_isInBadFork(),
    }


def threads_in_use(torch):
    """Threads that a product begins, and the one that asks for it."""
    before = len(os.listdir("/proc/self/task"))
    torch.ones(512, 512) @ torch.ones(512, 512)
    torch.ones(1 << 22).exp()
    return len(os.listdir("/proc/self/task")) - before + 1


def die(how, *, post):
    post(f"about to {how}")
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif how == "crash":
        ctypes.string_at(0)
    elif how == "abort":
        os.abort()
    elif how == "exit at once":
        os._exit(3)
    elif how == "exit at once without a word":
        os._exit(0)
    elif how == "exit":
        sys.exit(4)
    elif how == "exit without a code":
        sys.exit()
    elif how == "exit with words":
        sys.exit("no more of this")
    elif how == "real-time signal":
        os.kill(os.getpid(), signal.SIGRTMIN + 3)
    elif how == "raise":
        raise KeyError("x")
    elif how == "raise lines":
        raise RuntimeError("first\nsecond")
    elif how == "raise ours":
        raise DataError("no image", hint="look")
    elif how == "recursion":
        die(how, post=lambda message: None)
    elif how == "signal to itself":
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
    return how


def write(text, *, post):
    print(text)
    os.write(1, b"raw out\n")
    os.write(2, b"raw err\n")
    subprocess.run(["echo", "of a child"], check=True)
    print("to stderr", file=sys.stderr)
    os._exit(0) if text == "and die" else None


def post_much(count, *, post):
    for number in range(count):
        post((number, "x" * 1000))
    return count


def post_and_die(count, *, post):
    post_much(count, post=post)
    post("y" * 3_000_000)
    os.kill(os.getpid(), signal.SIGKILL)


def post_while_signals_come(count, *, post):
    """Signals that raise errors wherever they come while a message is posted, such as in the middle of it."""
    errors = 0

    def post_one(number):
        post((number, "x" * 100_000))

    def fail(number, frame):
        while frame is not None:
            if frame.f_code is post_one.__code__:
                raise ZeroDivisionError
            frame = frame.f_back

    signal.signal(signal.SIGALRM, fail)
    signal.setitimer(signal.ITIMER_REAL, 0.002, 0.002)
    for number in range(count):
        try:
            post_one(number)
        except ZeroDivisionError:
            errors += 1
    signal.setitimer(signal.ITIMER_REAL, 0)
    return errors


def post_half_a_frame(argument, *, post):
    """What a process leaves that dies, or hangs, in the middle of a message."""
    connection = next(n for n in range(3, 99) if is_socket(n))
    os.write(connection, b"\3" + (1000).to_bytes(8, "big") + b"half")
    if argument == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


def is_socket(number):
    return read_link(f"/proc/self/fd/{number}").startswith("socket:")


class Unreadable:
    def __reduce__(self):
        return int, ("no number",)


def say_what_cannot_cross(what, *, post):
    if what == "post lock":
        post(threading.Lock())
    if what == "post unreadable":
        post(Unreadable())
        time.sleep(60)
    return {"return lock": threading.Lock(), "return unreadable": Unreadable(), "fine": "fine"}[what]


def post_from_a_copy(argument, *, post):
    pid = os.fork()
    if pid == 0:
        try:
            post("from the copy")
        except RuntimeError as error:
            os._exit(7 if "only the process of the call" in str(error) else 8)
        os._exit(9)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def span(seconds, *, post):
    start = time.monotonic()
    time.sleep(seconds)
    return start, time.monotonic()


def save_when_stopped(folder, *, post):
    """As a training does: takes the signals over, looks between two steps, saves."""
    with StopRequest() as stop:
        stop.listening = True
        post(os.getpid())
        signals = []
        while not stop:
            time.sleep(0.01)
        signals.append(stop.signum)
        time.sleep(0.2)
        Path(folder, f"saved {os.getpid()}").write_text(str(stop.signum))
    raise InterruptedBySignal("saved", signum=signals[0])


def save_and_return(folder, *, post):
    try:
        save_when_stopped(folder, post=post)
    except InterruptedBySignal:
        return "saved"


def wait_for_a_signal(argument, *, post):
    post(os.getpid())
    time.sleep(60)


def never_stop(folder, *, post):
    """Takes no notice of any signal that can be taken no notice of, and has a child that does not either."""
    ignore_all()
    child = os.fork()
    if child == 0:
        time.sleep(60)
        os._exit(0)
    post((os.getpid(), child))
    time.sleep(60)


def hold_the_interpreter(folder, *, post):
    """Computes in C and lets no other thread of Python run."""
    ignore_all()
    post((os.getpid(), os.getpid()))
    ctypes.PyDLL(None).sleep(60)


def ignore_all():
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def leave_a_child(how, *, post):
    child = subprocess.Popen(["sleep", "60"])
    copy = os.fork()
    if copy == 0:
        ignore_all()
        time.sleep(60)
        os._exit(0)
    post((child.pid, copy))
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    os._exit(1) if how == "exit" else None


def leave_a_thread(argument, *, post):
    threading.Thread(target=time.sleep, args=(60,)).start()
    return "returned"


def kill_the_server(argument, *, post):
    if argument == "kill":
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(0.3)
        post("after the server's death")
    return argument


def kill_the_server_and_die(argument, *, post):
    post(subprocess.Popen(["sleep", "60"]).pid)
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(0.1)
    os._exit(3)


# -------------------------------------------------------------------------------------------------------- the program


class Calls:
    """The same call so many times."""

    def __init__(self, arguments, log_path):
        self._waiting = [Call(f"call{i}", argument, log_path) for i, argument in enumerate(arguments)]

    def next_call(self):
        return self._waiting.pop(0) if self._waiting else None

    def is_over(self):
        return not self._waiting


def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def main(function, folder, stop_seconds):
    say("driver", os.getpid())
    with StopRequest() as stop:
        results = run_isolated(
            globals()[function],
            Calls([folder] * 3, Path(folder, "log")),
            slots=[Slot(1, {})] * 2,
            preload=[],
            timeout_seconds=None,
            on_message=lambda key, message: say("message", message),
            stop=stop,
            patience=Patience(stop_seconds=float(stop_seconds)),
        )
        for result in results:
            say("result", result.key, result.exit_code, result.is_asked_to_stop, result.error)
    say("end", stop.signum)
