"""Processes that run `cvtrain`: started for real, or copied from one that has loaded everything, and watched."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cvtrain

# A process that has loaded everything once and is copied for each run: a run of its own starts in 2 ms, not 2 s.
# A copy can be killed, sent a signal, or made to see an error, at its N-th call of the functions that write.
# A line asks, a line answers: {"start": job} with the number of a new process; {"wait": number} with its exit code
# once it has ended; {"look": number} the same, or null while it runs. A number is its own until its end was told.
SERVER = """
import contextlib, errno, io, itertools, json, os, signal, sys
from cvtrain import cli

WRITING = ("open", "write", "fsync", "rename", "replace", "link", "unlink", "truncate", "mkdir")
publish = os.replace

def install(fault, counted):
    numbers = itertools.count(1)
    def wrapped(name, real):
        def call(*args, **kwargs):
            if name == "open" and not args[1] & (os.O_WRONLY | os.O_RDWR):
                return real(*args, **kwargs)
            number = next(numbers)
            counted.append(name)
            if fault.get("first", 0) <= number <= fault.get("last", -1) and name in fault.get("names", WRITING):
                if fault["kind"] == "kill":
                    if name == "write":
                        real(args[0], bytes(args[1])[: len(args[1]) // 2])
                    os.kill(os.getpid(), signal.SIGKILL)
                if fault["kind"].startswith("SIG"):
                    signal.raise_signal(getattr(signal, fault["kind"]))
                    return real(*args, **kwargs)
                raise OSError(getattr(errno, fault["kind"]), os.strerror(getattr(errno, fault["kind"])))
            return real(*args, **kwargs)
        return call
    for name in WRITING:
        setattr(os, name, wrapped(name, getattr(os, name)))

def child(job):
    os.setsid()  # all processes that it starts can be found by its number, and no terminal is theirs
    os.chdir(job["cwd"])
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for descriptor, name in ((1, "stdout.txt"), (2, "stderr.txt")):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), descriptor)
    counted = []
    install(job["fault"], counted)
    try:
        cli.main(job["words"])
    except SystemExit as end:
        sys.stdout.flush(), sys.stderr.flush()
        with open("calls.part", "w") as file:  # a signal may come now, too
            json.dump(counted, file)
        publish("calls.part", "calls.json")
        os._exit(end.code)

signal.signal(signal.SIGINT, signal.SIG_DFL)  # for copies that do not listen yet: as in a program of its own
with contextlib.redirect_stdout(io.StringIO()):
    cli.run(json.loads(sys.argv[1]))  # imports all that a run imports
for line in sys.stdin:
    (asked, about), = json.loads(line).items()
    if asked == "start":
        answer = os.fork()
        if not answer:
            child(about)
    else:
        ended, status = os.waitpid(about, os.WNOHANG if asked == "look" else 0)
        answer = os.waitstatus_to_exitcode(status) if ended else None
    print(json.dumps(answer), flush=True)
"""


def environment():
    """What a process that is started here finds: one thread, and the package that this process has."""
    package = str(Path(cvtrain.__file__).parents[1])
    path = os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", "PYTHONPATH": path}


@dataclass(frozen=True)
class Ended:
    """A process that has ended; `code` is negative when a signal killed it."""

    code: int
    stdout: str
    stderr: str
    calls: list


class Running:
    """A run in a process of its own, which leads a session of its own and writes into two files.

    Args:
        pid: Its number, which no other process is given before `look` has told its end.
        cwd: Where it works.
        look: Its exit code, or None while it runs; if it is to wait, once it has ended.
    """

    def __init__(self, pid: int, cwd: Path, look: Callable[[bool], int | None]) -> None:
        self.pid, self.cwd, self.code = pid, cwd, None
        self._look = look

    def poll(self) -> int | None:
        """Its exit code, or None while it runs."""
        if self.code is None:
            self.code = self._look(False)
        return self.code

    def send_signal(self, number: int, *, to_group: bool = False) -> None:
        """Sends a signal; nothing where its end is known."""
        if self.code is None:
            (os.killpg if to_group else os.kill)(self.pid, number)

    def stdout(self) -> str:
        """What it has written so far."""
        return text_of(self.cwd / "stdout.txt")

    def leave_alone(self, seconds: float) -> None:
        """Waits for its end, but not longer than told."""
        end = time.monotonic() + seconds
        while self.poll() is None and (left := end - time.monotonic()) > 0:
            time.sleep(min(0.002, left))

    def wait(self, seconds: float = 180.0) -> Ended:
        """Waits for its end; kills what does not end.

        Raises:
            TimeoutError: It had to be killed.
        """
        self.leave_alone(seconds)
        if self.code is None:
            self.send_signal(signal.SIGKILL)
            self.code = self._look(True)
            raise TimeoutError(f"no end after {seconds:g} s: {self.cwd}")
        return self.ended()

    def ended(self) -> Ended:
        """What it has left."""
        if self.code is None:
            self.code = self._look(True)
        calls = self.cwd / "calls.json"
        texts = [text_of(self.cwd / name) for name in ("stdout.txt", "stderr.txt")]
        return Ended(self.code, *texts, json.loads(calls.read_text()) if calls.exists() else [])


def text_of(path: Path) -> str:
    """The text of a file, if there is one."""
    return path.read_text() if path.exists() else ""


def start_program(words: list[str], *, cwd: Path) -> Running:
    """Starts `python -m cvtrain`, with all its imports, like a copy of a prepared process."""
    cwd.mkdir(parents=True, exist_ok=True)
    (cwd / "calls.json").unlink(missing_ok=True)
    command = [sys.executable, "-m", "cvtrain", *words]
    with open(cwd / "stdout.txt", "w") as out, open(cwd / "stderr.txt", "w") as error:
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env=environment(),
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=error,
        )
    return Running(process.pid, cwd, lambda is_to_wait: process.wait() if is_to_wait else process.poll())


class Server:
    """Runs commands in copies of one prepared process, any number of them at the same time."""

    def __init__(self, folder, warm_up, **variables):
        command = [sys.executable, "-c", SERVER, json.dumps(warm_up)]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**environment(), **variables},
            cwd=folder,
        )
        self._one_at_a_time = threading.Lock()

    def ask(self, **question):
        with self._one_at_a_time:
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError("the prepared process has ended; its last words stand above")
        return json.loads(answer)

    def start(self, words, *, cwd, **fault):
        """Starts a command line; `kind`, `first`, `last` and `names` say what fails at which calls."""
        cwd.mkdir(parents=True, exist_ok=True)
        for name in ("calls.json", "stdout.txt", "stderr.txt"):
            (cwd / name).unlink(missing_ok=True)
        job = {"words": [str(w) for w in words], "cwd": str(cwd), "fault": fault}
        pid = self.ask(start=job)
        return Running(pid, cwd, lambda is_to_wait: self.ask(wait=pid) if is_to_wait else self.ask(look=pid))

    def __call__(self, words, *, cwd, **fault):
        """Runs a command line to its end."""
        return self.start(words, cwd=cwd, **fault).ended()

    def close(self):
        self._process.kill()  # it has nothing to put away, and leaving by itself takes it seconds
        self._process.wait()
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.stdout.close()

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        self.close()


@contextlib.contextmanager
def started(words, *, cwd, **options):
    """Starts `python -m cvtrain` for real: `with started(words, cwd=...) as process`."""
    cwd.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "cvtrain", *(str(w) for w in words)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, cwd=cwd, env=environment(), **{**pipes, **options})
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        for pipe in (process.stdout, process.stderr):
            if pipe:
                pipe.close()


def session_of(leader):
    """The processes, but for those that have ended, of the session that a process leads or led."""
    return [pid for pid, fields in _running() if int(fields[3]) == leader]


def children_of(parent):
    """The processes, but for those that have ended, that a process has started."""
    return [pid for pid, fields in _running() if int(fields[1]) == parent]


def _running():
    """Numbers and, from the state on, the fields of /proc/PID/stat."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended meanwhile
            continue
        if fields[0] not in "ZX":
            yield int(path.parent.name), fields


def wait_until(condition, *, seconds):
    """Waits until something is so; returns whether it ever was."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True
