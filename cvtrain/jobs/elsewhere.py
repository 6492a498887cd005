"""What is particular to processes that a launcher of somebody else's begins for jobs: joblib's, or those of SLURM.

Knows submitit, joblib's habits and the environment that they make; not what a job does, nor how jobs are chosen.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

from cvtrain.console import Console
from cvtrain.engine import runtime
from cvtrain.outputs import new_folder
from cvtrain.signals import Interruption

_PACKAGES = {
    "joblib": ("hydra_plugins.hydra_joblib_launcher", "cvtrain[sweep]"),
    "submitit_local": ("hydra_plugins.hydra_submitit_launcher", "cvtrain[slurm]"),
    "submitit_slurm": ("hydra_plugins.hydra_submitit_launcher", "cvtrain[slurm]"),
}
"""Of each launcher: its module, and what brings it."""

_SUBMITIT = ".submitit"
"""Where submitit writes, in a folder that it is given; so Hydra's launcher has it."""


def missing_for(launcher: str) -> str | None:
    """What has to be there before a launcher can be used, and is not."""
    module, extra = _PACKAGES.get(launcher, ("", ""))
    if module and importlib.util.find_spec(module) is None:
        return f"hydra/launcher={launcher} needs another package: pip install '{extra}'"
    if launcher == "submitit_slurm" and not (shutil.which("srun") and shutil.which("sbatch")):
        return f"hydra/launcher={launcher}: there is no SLURM here (no sbatch, no srun): type this on a login node"
    return None


# ------------------------------------------------------------------------------------------------ the driver's side


@contextlib.contextmanager
def launcher_folder(sweep_dir: Path, *, launcher: str) -> Iterator[Path]:
    """A folder for what Hydra and a launcher write during one command; nobody else may read it.

    Settings stand in it as they were typed, passwords too: in pickles as long as jobs need them, and in Hydra's own
    `multirun.yaml`. When all is over, the logs stay. After a signal jobs may still be in a queue: the pickles stay too.

    Args:
        sweep_dir: Of the sweep.
        launcher: Its name.

    Raises:
        OutputError: The folder cannot be made.
    """
    folder = new_folder(sweep_dir / "launcher")
    folder.chmod(0o700)
    try:
        yield folder
        _remove(folder, "*.pkl")
    except Interruption:
        if launcher.startswith("submitit"):
            Console().say("what was submitted may go on; the same command waits for it")
        raise
    except Exception:
        _remove(folder, "*.pkl")
        raise
    finally:
        _remove(folder.parent, "multirun.yaml")  # of commands that were killed too
        _remove_empty(folder)


@contextlib.contextmanager
def submitting(folder: Path) -> Iterator[None]:
    """Keeps from the terminal what submitit and its processes say, such as a traceback at Ctrl-C; says where it is.

    Args:
        folder: What `launcher_folder` gave.
    """
    Console().say(f"what the jobs say is in {folder / _SUBMITIT}")
    terminal, path = {number: os.dup(number) for number in (1, 2)}, folder / "submitit.txt"
    with open(path, "a", encoding="utf-8") as log:
        for number in terminal:
            os.dup2(log.fileno(), number)
    try:
        yield
    finally:
        for number, kept in terminal.items():
            os.dup2(kept, number)
            os.close(kept)
        if not path.stat().st_size:
            path.unlink()


def trouble_in_words(error: Exception) -> str:
    """Why a launcher has given up, in a line."""
    kind, lines = type(error).__name__, str(error).splitlines() or [""]
    if kind == "TerminatedWorkerError":
        return "a process was killed (too little memory?), and joblib ended the others with it"
    if kind == "UncompletedJobError" or "processing with trace" in lines[0]:
        return "a job ended without saying what became of it; its log is the place to look"
    return f"{kind}: {lines[0]}"


def wait_for_slurm(folder: Path) -> None:
    """Waits until SLURM has ended all jobs of one command, also after one that ended without a word.

    Args:
        folder: What `launcher_folder` gave.
    """
    from submitit import SlurmJob

    for path in sorted(folder.glob(f"{_SUBMITIT}/*/*_submitted.pkl")):
        SlurmJob(folder / _SUBMITIT / "%j", path.parent.name).wait()


def _remove(folder: Path, pattern: str) -> None:
    for path in folder.rglob(pattern):
        with contextlib.suppress(OSError):
            path.unlink()


def _remove_empty(folder: Path) -> None:
    inside = sorted((path for path in folder.rglob("*") if path.is_dir()), reverse=True)
    for path in (*inside, folder, folder.parent):
        with contextlib.suppress(OSError):  # it holds logs
            path.rmdir()


# ------------------------------------------------------------------------------------------------ the job's side


def settle(cpus_per_task: int | None) -> None:
    """Prepares a process for a job, before torch is loaded: memory, threads, and its place among several.

    joblib has divided the cores itself. SLURM may, or may not, bind a process to those that it was given: what was
    asked for counts, and without that the cores that the process may use.

    Args:
        cpus_per_task: As the user asked for; None where they did not.
    """
    if "torch" not in sys.modules:
        runtime.prepare()
    cores = cpus_per_task or os.environ.get("SLURM_CPUS_PER_TASK")
    if cores:
        os.environ.setdefault("OMP_NUM_THREADS", str(cores))
    if _is_submitted():
        from submitit import JobEnvironment
        from submitit.helpers import TorchDistributedEnvironment

        if JobEnvironment().num_tasks > 1:
            TorchDistributedEnvironment().export(set_cuda_visible_devices=False, overwrite=True)


def pass_on(signum: int) -> None:
    """Hands on a signal after which a job has saved its state; returns where only this job was meant.

    submitit puts the job into the queue again where the signal is the one that it listens to (SIGUSR2: the time is up,
    or SLURM needs the place), and ends this process. SIGTERM it passes over, because it cannot know what is meant: the
    job was cancelled, or SLURM itself has put it into the queue again. So this process ends without a result: in the
    first case SLURM says so to the command that waits, in the second the command goes on waiting.

    A process of joblib's lives on, for the next job.

    Raises:
        SystemExit: To end this process.
        UncompletedJobError: submitit may not put the job into the queue any more.
    """
    if _is_submitted():
        signal.raise_signal(signum)
        sys.exit(128 + signum)


def _is_submitted() -> bool:
    return bool(os.environ.get("SUBMITIT_EXECUTOR"))
