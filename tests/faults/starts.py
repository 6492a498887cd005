"""Many processes that begin at once, and folders that are in use: each run has a folder, each folder one process."""

import os
import signal
import subprocess
from pathlib import Path

from tests.faults.figures import Figure, Settings
from tests.faults.processes import Server, wait_until
from tests.faults.small_runs import WARM_UP, only_run, words

NUM_AT_ONCE, NUM_PAIRS = 100, 20
LONG = words("trainer.checkpoint.every_minutes=1e-9", steps=100_000, every=1000)


def measure(settings: Settings) -> list[Figure]:
    """Starts processes at once, each in a folder of its own and then two in the same."""
    folder = settings.folder(__name__)
    with Server(folder, WARM_UP) as server:
        return [
            started_at_once(server, folder / "at once", NUM_AT_ONCE),
            two_in_one_folder(server, folder, NUM_PAIRS),
            left_locks(server, folder, NUM_PAIRS),
        ]


def started_at_once(server: Server, folder: Path, count: int) -> Figure:
    """Starts runs with the same output folder within about a second."""
    processes = [
        server.start([*words(steps=1), f"output_dir={folder}"], cwd=folder / "cwd" / str(i)) for i in range(count)
    ]
    codes = [process.wait(600).code for process in processes]
    runs = sorted(folder.glob("train/*/*"))
    whole = [
        run for run in runs if (run / "metrics.csv").exists() and (run / "metrics.csv").read_text().count("\n") == 2
    ]
    broken = []
    if any(codes):
        broken.append(f"{folder}: {sum(map(bool, codes))} ended with an error")
    if len(whole) != count:
        broken.append(f"{folder}: {len(runs)} folders for {count} runs, {len(whole)} of them with one row of metrics")
    return Figure("started at once", count, count, "as many folders, each with one whole run", tuple(broken))


def two_in_one_folder(server: Server, folder: Path, count: int) -> Figure:
    """Two processes go on with the same run at the same time."""
    broken = []
    cwd = folder / "in use"
    killed_run(server, cwd)
    for number in range(count):
        both = [server.start([f"resume={only_run(cwd)}"], cwd=cwd / f"{number}{name}") for name in "ab"]
        wait_until(lambda both=both: any(one.poll() is not None for one in both), seconds=60)
        refused = next((one for one in both if one.poll() is not None), None)
        winner = next((one for one in both if one is not refused), both[0])
        alive = winner.poll() is None
        words_of_refused = refused.ended().stderr if refused else ""
        expected = f"in use by process {winner.pid} on {os.uname().nodename}"
        if not alive or refused is None or refused.code != 2 or expected not in words_of_refused:
            broken.append(f"{cwd}: {number}: {refused and refused.code}: {words_of_refused.strip()}")
        for one in both:
            one.send_signal(signal.SIGKILL)
            one.wait()
    return Figure(
        "two in one folder", count, 1, "one trains; the other ends with 2 and names process and machine", tuple(broken)
    )


def left_locks(server: Server, folder: Path, count: int) -> Figure:
    """A lock that names a process that is dead, or one that has its number now and is another program."""
    broken = []
    cwd = folder / "left"
    killed_run(server, cwd)
    run = only_run(cwd)
    with subprocess.Popen(["sleep", "3600"]) as other:
        for number in range(count):
            if number % 2 == 0:
                (run / ".lock").write_text(f"process {other.pid} on {os.uname().nodename}")
            process = server.start([f"resume={run}"], cwd=cwd / str(number))
            is_on = wait_until(
                lambda process=process: "goes on after step" in process.stdout() or process.poll() is not None,
                seconds=60,
            )
            if not is_on or process.poll() is not None:
                broken.append(f"{cwd}: {number}: {process.code}: {process.ended().stderr.strip()}")
            process.send_signal(signal.SIGKILL)
            process.wait()
        other.kill()
    return Figure("lock of a dead process, or of another program", count, 1, "the next process goes on", tuple(broken))


def killed_run(server: Server, cwd: Path) -> None:
    """Leaves a run that was killed after its first checkpoints."""
    process = server.start(LONG, cwd=cwd)
    wait_until(lambda: list(cwd.glob("out/train/*/*/checkpoints/step-*")) or process.poll() is not None, seconds=60)
    process.send_signal(signal.SIGKILL)
    process.wait()
