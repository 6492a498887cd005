"""Every system call by which a run writes, failed in its turn: the 1st, the 2nd, the 3rd ... until none is left.

Source of the method: SQLite, "How SQLite Is Tested", section 3.2: each fault once alone and once lasting.
"""

import itertools
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from cvtrain.engine.checkpoint import load_newest
from tests.faults.figures import Figure, Settings
from tests.faults.processes import Server, environment
from tests.faults.small_runs import WARM_UP, differences, end_of, leftovers, only_run, words

MARK = "out/train"
"""In the name of everything that a run writes."""

KINDS = ("kill", "EIO", "ENOSPC", "short")
WARNING = "training goes on, and the next save tries again"
COMMAND = words("trainer.checkpoint.every_minutes=1e-9", steps=6, every=2)
"""Saves after every step: the best one changes, and older ones go."""

REQUIRED = "no acknowledged checkpoint lost, none bad, exit 0 or 4 in words, no temporary file, the same end"


@dataclass(frozen=True)
class Fault:
    """Calls that fail: of a kind, from the `first` to the `last`, counted from 1."""

    kind: str
    first: int
    last: int

    def __str__(self) -> str:
        return f"{self.kind}-{self.first}{'' if self.first == self.last else '-and-all-later'}"


def compiled(folder: Path) -> tuple[Path | None, str]:
    """The library that makes calls fail, or None and what this machine lacks for it."""
    if shutil.which("gcc") is None:
        return None, "gcc, to make system calls fail"
    library = folder / "failing_calls.so"
    source = Path(__file__).with_name("failing_calls.c")
    command = ["gcc", "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (None, f"a gcc that works: {done.stderr[:100]}") if done.returncode else (library, "")


def run_with(server: Server, fault: Fault, command: list[str], *, cwd: Path):
    """Runs a command some of whose calls fail; returns how it ended and the names of the calls that were counted."""
    cwd.mkdir(parents=True, exist_ok=True)
    (cwd / "fault.plan").write_text(f"{MARK} {fault.kind} {fault.first} {fault.last}\n")
    ended = server(command, cwd=cwd)
    (cwd / "fault.plan").unlink()
    return ended, (cwd / "fault.log").read_text().split()


def all_faults(calls: list[str]) -> list[Fault]:
    """Every fault of every kind at every call, alone and lasting; a kill lasts by itself, a half is of writes."""
    lasting = 10**6
    return [
        Fault(kind, first, last)
        for first, name in enumerate(calls, 1)
        for kind in KINDS
        for last in (first, lasting)
        if not (kind == "kill" and last == lasting) and not (kind == "short" and name != "write")
    ]


def broken_by(server: Server, fault: Fault, *, cwd: Path, expected: dict) -> str | None:
    """Brings one fault upon a run and continues it; returns what did not hold, or None."""
    ended, _ = run_with(server, fault, COMMAND, cwd=cwd)
    run = only_run(cwd)
    if fault.kind != "kill":
        if ended.code not in (0, 4) or "Traceback" in ended.stderr or len(ended.stderr.splitlines()) > 6:
            return f"ended with {ended.code}: {ended.stderr[:300]}"
        if ended.stdout.count(WARNING) > 1 and fault.first == fault.last:
            return "warned more than once of one fault"
        if run is None or not (run / "config.yaml").exists():
            return None if ended.code == 4 else "ended well and left no run"
    elif run is None or not (run / "config.yaml").exists():
        return None  # killed before it was a run at all
    what = lost(run, ended.stdout)
    if what is not None:
        return what
    if ended.code:
        again = server([f"resume={run}"], cwd=cwd)
        if again.code:
            return f"could not be continued: {again.stderr[:300]}"
        if leftovers(run):
            return f"left {leftovers(run)}"
    different = differences(run, expected)
    return f"ended with other {', '.join(different)}" if different else None


def lost(run: Path, stdout: str) -> str | None:
    """Says of a checkpoint that is bad or gone: without a warning each evaluation told of, but the last, has one."""
    newest = load_newest(run / "checkpoints", set_aside=False)
    if newest is not None and newest.notes:
        return f"a checkpoint is bad: {newest.notes[0]}"
    told = [line for line in stdout.splitlines() if line.startswith("epoch ")]
    if len(told) < 2 or WARNING in stdout:
        return None
    step = int(told[-2].partition("step")[2].split()[0])
    if newest is None or newest.state["trainer"]["step"] < step:
        return f"step {step} was acknowledged and is lost"
    return None


def measure(settings: Settings) -> list[Figure]:
    """Fails every call of a whole run."""
    folder = settings.folder(__name__)
    library, lacking = compiled(folder)
    if library is None:
        return [Figure("a call that writes fails", 0, 0, REQUIRED, left_out=lacking)]
    servers = [Server(folder, WARM_UP, LD_PRELOAD=str(library)) for _ in range(settings.processes)]
    try:
        whole, calls = run_with(servers[0], Fault("none", 0, 0), COMMAND, cwd=folder / "whole")
        assert whole.code == 0, whole.stderr
        expected = end_of(only_run(folder / "whole"))
        faults = all_faults(calls)
        settings.say(f"{len(calls)} calls, {len(faults)} faults")
        with ThreadPoolExecutor(len(servers)) as pool:
            lists = [faults[i :: len(servers)] for i in range(len(servers))]
            found = pool.map(lambda pair: _tried(*pair, folder, expected, settings), zip(servers, lists, strict=True))
            broken = sorted(itertools.chain.from_iterable(found))
    finally:
        for server in servers:
            server.close()
    by_kind = [
        Figure(
            f"{kind} at each of {len(calls)} calls that write",
            num_faults=sum(fault.kind == kind for fault in faults),
            num_runs=sum(fault.kind == kind for fault in faults),
            required=REQUIRED,
            broken=tuple(what for of, what in broken if of == kind),
        )
        for kind in KINDS
    ]
    return [*by_kind, _nothing_escapes(folder, calls)]


def _tried(
    server: Server, faults: list[Fault], folder: Path, expected: dict, settings: Settings
) -> list[tuple[str, str]]:
    broken = []
    for number, fault in enumerate(faults, 1):
        cwd = folder / str(fault)
        what = broken_by(server, fault, cwd=cwd, expected=expected)
        if what is None:
            shutil.rmtree(cwd)
        else:
            broken.append((fault.kind, f"{fault}: {what} ({cwd})"))
        if number % 100 == 0:
            settings.say(f"{number} of {len(faults)} faults, {len(broken)} broke something")
    return broken


def _nothing_escapes(folder: Path, calls: list[str]) -> Figure:
    """Compares what the library counts with what the kernel is asked for, as strace tells it."""
    what, required = "calls that the injection does not see", "as many as the kernel sees"
    if shutil.which("strace") is None:
        return Figure(what, 0, 0, required, left_out="strace, to look from outside")
    log, cwd = folder / "strace.txt", folder / "strace"
    cwd.mkdir()
    command = ["strace", "-f", "-qq", "-y", "-o", str(log), "-e", f"trace={','.join(_SHOWN_AS)}"]
    command += [sys.executable, "-m", "cvtrain", *COMMAND]
    done = subprocess.run(command, cwd=cwd, env=environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        return Figure(what, 0, 0, required, left_out=f"an strace that works: {done.stderr[:100]}")
    seen = Counter(_SHOWN_AS[name] for name in _calls_on_run(log.read_text().splitlines()))
    different = {name: (calls.count(name), seen[name]) for name in {*calls, *seen} if calls.count(name) != seen[name]}
    broken = tuple(f"{name}: {ours} counted, {theirs} made" for name, (ours, theirs) in sorted(different.items()))
    return Figure(what, seen.total(), 1, required, broken=broken)


_SHOWN_AS = {
    **{"open": "open", "openat": "open", "creat": "open"},
    **{"write": "write", "pwrite64": "write", "writev": "write", "sendfile": "write", "copy_file_range": "write"},
    **{"fsync": "fsync", "fdatasync": "fsync", "ftruncate": "truncate", "truncate": "truncate"},
    **{"rename": "rename", "renameat": "rename", "renameat2": "rename", "link": "link", "linkat": "link"},
    **{"unlink": "unlink", "unlinkat": "unlink", "rmdir": "rmdir", "mkdir": "mkdir", "mkdirat": "mkdir"},
}


def _calls_on_run(lines: list[str]) -> Iterator[str]:
    for line in lines:
        call = re.match(r"\d+ +(\w+)\((.*)", line)
        if call is None or "O_DIRECTORY" in call[2]:  # how the C library itself lists a folder
            continue
        about = call[2].partition(",")[0] if _SHOWN_AS[call[1]] == "write" else call[2]  # not what is written
        if MARK in about:
            yield call[1]
