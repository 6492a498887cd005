"""Disks that are full, read-only, forbidden or gone, for real: small file systems, flags of files, other users."""

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from cvtrain.engine.checkpoint import list_checkpoints, read_checkpoint
from cvtrain.errors import CheckpointError
from tests.faults.figures import Figure, Settings
from tests.faults.processes import Ended, Server, environment, started, wait_until
from tests.faults.small_runs import (
    WARM_UP,
    differences,
    end_of,
    files_words,
    leftovers,
    num_evaluations,
    only_run,
    words,
    write_images,
)

WARNING = "training goes on, and the next save tries again"
COMMAND = words("trainer.checkpoint.every_minutes=100", steps=28)
"""Four evaluations, a checkpoint each."""

NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
SECONDS_TO_REFUSE = 3.0


@contextlib.contextmanager
def small_disk(folder: Path, num_bytes: int) -> Iterator[Path]:
    """A file system of so many bytes; `PermissionError` where none can be mounted."""
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={num_bytes}", "tmpfs", str(folder)]
    if os.geteuid() != 0 or shutil.which("mount") is None or subprocess.run(command, check=False).returncode:
        raise PermissionError("the right to mount a small disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def in_words(ended: Ended, code: int) -> str | None:
    """Whether a command ended with a code and an error as a user should see it; else what it did."""
    if ended.code != code or "Traceback" in ended.stderr or len(ended.stderr.splitlines()) > 6:
        return f"ended with {ended.code}: {ended.stderr[-400:]}"
    return None


def broken_by_full_disk(server: Server, num_bytes: int, *, cwd: Path, expected: dict) -> str | None:
    """Runs on a disk of so many bytes, then gives it room and goes on; returns what did not hold, or None."""
    command = [word for word in COMMAND if not word.startswith("output_dir")]
    with small_disk(cwd / "disk", num_bytes) as disk:
        ended = server([*command, f"output_dir={disk}/out"], cwd=cwd)
        run = only_run(disk)
        if ended.code == 0:
            return differences_in_words(run, expected)
        what = in_words(ended, 4)
        if what is not None or "No space left on device" not in ended.stderr:
            return what or f"says {ended.stderr}"
        if run is None or not (run / "config.yaml").exists():
            return "trained in no folder" if "epoch" in ended.stdout else None
        if ended.stdout.count(WARNING) > 1:
            return "warned more than once"
        if "epoch" in ended.stdout and num_evaluations(ended.stdout) != 4:
            return "did not train to the end"
        try:
            for file in list_checkpoints(run / "checkpoints", "step"):
                read_checkpoint(file.path)
        except CheckpointError as error:
            return error.message
        if leftovers(run):
            return f"left {leftovers(run)}"
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        again = server([f"resume={run}"], cwd=cwd)
        return in_words(again, 0) or differences_in_words(run, expected)


def differences_in_words(run: Path, expected: dict) -> str | None:
    different = differences(run, expected)
    return f"ended with other {', '.join(different)}" if different else None


def _full(server: Server, folder: Path, settings: Settings, *, num_sizes: int = 20) -> Figure:
    whole = server(COMMAND, cwd=folder / "whole")
    assert whole.code == 0, whole.stderr
    run = only_run(folder / "whole")
    checkpoint = list_checkpoints(run / "checkpoints", "step")[-1].path.stat().st_size
    # From the first block to room for everything: names and small files take some, then come the checkpoints.
    most = 4 * checkpoint + 40 * 4096
    sizes = [4096 * max(1, round(most / 4096 * (i / (num_sizes - 1)) ** 2)) for i in range(num_sizes)]
    expected, broken = end_of(run), []
    for number, size in enumerate(sizes, 1):
        what = broken_by_full_disk(server, size, cwd=folder / f"full-{number}", expected=expected)
        broken += [f"a disk of {size} bytes: {what}"] if what else []
    settings.say(f"{num_sizes} small disks")
    required = (
        "exit 4 before training, or one warning, training to its end, exit 4, whole checkpoints; exact when resumed"
    )
    return Figure(f"full disks of {sizes[0]:,} to {sizes[-1]:,} bytes", num_sizes, num_sizes, required, tuple(broken))


def _process(words_: list[str], *, cwd: Path, before: list[str] = [], **variables: str | None) -> tuple[Ended, float]:  # noqa: B006
    """Runs `python -m cvtrain` behind the words of another command; returns how it ended and the seconds it took."""
    cwd.mkdir(parents=True, exist_ok=True)
    given = {name: value for name, value in {**environment(), **variables}.items() if value is not None}
    command = [*before, sys.executable, "-m", "cvtrain", *words_]
    begun = time.monotonic()
    done = subprocess.run(command, cwd=cwd, env=given, capture_output=True, text=True, timeout=300, check=False)
    return Ended(done.returncode, done.stdout, done.stderr, []), time.monotonic() - begun


def _refused(folder: Path) -> Figure:
    """Output folders that nobody may write to, from the start."""
    broken, seconds, lacking, num = [], [], [], 0

    def refuses(how: str, parent: Path, before: list[str]) -> None:
        nonlocal num
        ended, took = _process(["data=digits", "model=linear", f"output_dir={parent}/out"], cwd=folder, before=before)
        num += 1
        seconds.append(took)
        what = in_words(ended, 4) or ("trained" if "epoch" in ended.stdout else None)
        broken.extend([f"{how}: {what}"] if what else [])
        broken.extend([f"{how}: left {list(parent.iterdir())}"] if list(parent.iterdir()) else [])

    try:
        with small_disk(folder / "read-only", 2**20) as disk:
            subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
            refuses("a read-only disk", disk, [])
    except PermissionError as error:
        lacking.append(str(error))
    forbidden = folder / "forbidden"
    forbidden.mkdir()
    if os.geteuid() == 0 and shutil.which("setpriv"):
        for path in (*forbidden.parents, forbidden):
            if path.stat().st_uid == os.geteuid() and not path.stat().st_mode & 0o001:
                path.chmod(path.stat().st_mode | 0o011)
        refuses("no right to write", forbidden, NOBODY)
    if (
        shutil.which("chattr")
        and not subprocess.run(["chattr", "+i", forbidden], check=False, capture_output=True).returncode
    ):
        try:
            refuses("an immutable folder", forbidden, [])
        finally:
            subprocess.run(["chattr", "-i", forbidden], check=True)
    measured = f"refused after {max(seconds, default=0):.1f} s at most, starting Python and torch included"
    return Figure(
        "folders that cannot be written",
        num,
        num,
        "exit 4 before training, nothing left",
        tuple(broken),
        measured,
        "" if num else ", ".join(lacking),
    )


def _read_only_in_mid_run(folder: Path) -> Figure:
    """A run folder that nothing can be written to any more from some moment on."""
    what, required = (
        "a run folder that becomes read-only",
        "one warning, all evaluations told, exit 4, exact when resumed",
    )
    command, cwd = words("trainer.checkpoint.every_minutes=100", steps=700), folder / "mid-run"
    if shutil.which("chattr") is None or os.geteuid() != 0:
        return Figure(what, 0, 0, required, left_out="chattr and root")
    with started(command, cwd=cwd) as process:
        wait_until(lambda: list(cwd.glob("out/train/*/*/checkpoints/best-*")), seconds=120)
        run = only_run(cwd)
        subprocess.run(
            ["chattr", "-R", "+i", str(run)], check=False, capture_output=True
        )  # a file may just be replaced
        try:
            stdout, stderr = process.communicate(timeout=300)
        finally:
            subprocess.run(["chattr", "-R", "-i", str(run)], check=True)
    ended = Ended(process.returncode, stdout, stderr, [])
    broken = [in_words(ended, 4), f"{stdout.count(WARNING)} warnings" if stdout.count(WARNING) != 1 else None]
    again, _ = _process([f"resume={run}"], cwd=cwd)
    whole, _ = _process(command, cwd=folder / "mid-run-whole")
    broken += [in_words(again, 0), in_words(whole, 0)]
    told, wanted = num_evaluations(stdout), num_evaluations(whole.stdout)
    broken.append(None if told == wanted else f"told of {told} evaluations of {wanted}")
    if whole.code == again.code == 0:
        broken.append(differences_in_words(run, end_of(only_run(folder / "mid-run-whole"))))
    return Figure(what, 1, 1, required, tuple(filter(None, broken)))


def _places_beside(folder: Path) -> Figure:
    """Places that are of no use: for temporary files, a home, a cache, plots, and what is printed."""
    images = write_images(folder / "images")
    command = files_words(images, workers=2, steps=28)
    missing, broken = str(folder / "missing"), []
    cases: dict[str, dict[str, str | None]] = {
        "no TMPDIR": {"TMPDIR": missing},
        "no HOME": {"HOME": None, "XDG_CACHE_HOME": None},
        "a HOME that cannot be written": {"HOME": "/proc", "XDG_CACHE_HOME": None},
        "a cache folder that cannot be written": {"XDG_CACHE_HOME": "/proc"},
    }
    for how, variables in cases.items():
        for loader in ("files", "memory") if "TMP" not in how else ("files",):
            typed = [f"data.loader={loader}" if word.startswith("data.loader") else word for word in command]
            ended, _ = _process(typed, cwd=folder / how / loader, **variables)
            what = in_words(ended, 0)
            broken += [f"{how}, {loader}: {what}"] if what else []
    num = 2 * len(cases) - 1
    with contextlib.suppress(PermissionError), small_disk(folder / "full-tmp", 4096) as disk:
        (disk / "full").write_bytes(bytes(4096))
        what = in_words(_process(command, cwd=folder / "tmp", TMPDIR=str(disk))[0], 0)
        broken += [f"a full TMPDIR: {what}"] if what else []
        num += 1
    with open("/dev/full", "w", encoding="utf-8") as full:
        cwd = folder / "printed"
        with started(COMMAND, cwd=cwd, stdout=full) as process:
            _, stderr = process.communicate(timeout=300)
        what = in_words(Ended(process.returncode, "", stderr, []), 0)
        said = "" if "standard output cannot be written" in stderr else "said nothing of lost lines"
        broken += [f"printed to a full disk: {what or said}"] if what or said else []
    return Figure("useless TMPDIR, HOME, cache, standard output", num + 1, num + 1, "the run is done", tuple(broken))


def measure(settings: Settings) -> list[Figure]:
    """Runs on disks of many kinds."""
    folder = settings.folder(__name__)
    figures = []
    server = Server(folder, WARM_UP)
    try:
        figures.append(_full(server, folder, settings))
    except PermissionError as error:
        figures.append(Figure("full disks", 0, 0, "one warning, exit 4", left_out=str(error)))
    finally:
        server.close()
    for part in (_refused, _read_only_in_mid_run, _places_beside):
        figures.append(part(folder))
        settings.say(figures[-1].what)
    return figures
