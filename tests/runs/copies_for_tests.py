"""A process that has loaded everything once and is copied for each process of a command: in 2 ms, not in 2 s."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass

SERVER = """
import json, os, sys
from cvtrain import cli

exec(sys.argv[1])  # loads all that the copies need

def child(job, number):
    os.setsid()  # as launchers do: a signal to one is none to the others
    os.chdir(job["cwd"])
    sys.path.insert(0, job["cwd"])
    os.environ.clear()
    os.environ.update(job["environments"][number])
    for descriptor, name in ((1, f"stdout{number}.txt"), (2, f"stderr{number}.txt")):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), descriptor)
    try:
        cli.main(job["words"])
    except SystemExit as end:
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(end.code)

for line in sys.stdin:
    job = json.loads(line)
    if "pids" in job:
        codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in job["pids"]]
        print(json.dumps(codes), flush=True)
        continue
    pids = []
    for number in range(len(job["environments"])):
        pid = os.fork()
        if not pid:
            child(job, number)
        pids.append(pid)
    print(json.dumps(pids), flush=True)
"""


@dataclass(frozen=True)
class Ended:
    """Of each process: its exit code, and what it printed."""

    codes: list
    out: list
    errors: list


class Copies:
    """Runs command lines as copies of one prepared process; `prepare` is the program that prepares it."""

    def __init__(self, folder, *, prepare):
        self._process = subprocess.Popen(
            [sys.executable, "-c", SERVER, prepare],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            cwd=folder,
        )

    def _ask(self, job):
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    @contextlib.contextmanager
    def start(self, words, *, cwd, environments):
        """Starts a process in each environment; yields their ids and what waits for their end."""
        cwd.mkdir(parents=True, exist_ok=True)
        job = {"words": [str(word) for word in words], "cwd": str(cwd), "environments": environments}
        pids, ended = self._ask(job), []

        def texts(name):
            return [(cwd / f"{name}{number}.txt").read_text() for number in range(len(pids))]

        def wait():
            if not ended:
                ended.append(Ended(self._ask({"pids": pids}), texts("stdout"), texts("stderr")))
            return ended[0]

        try:
            yield pids, wait
        finally:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)
            wait()

    def close(self):
        self._process.stdin.close()
        self._process.wait(timeout=10)
        self._process.stdout.close()
