"""Disks that lose what was not synced: checkpoints that were told of are there after a power cut, and whole.

A cut is ext4's own shutdown, without its journal: what lies in memory alone is gone. A disk that lies about its
cache, other file systems and network disks are not tried.
"""

import contextlib
import fcntl
import os
import shutil
import signal
import struct
import subprocess
import sys
from pathlib import Path

from cvtrain.engine.checkpoint import list_checkpoints, read_checkpoint
from cvtrain.errors import CheckpointError
from tests.faults.figures import Figure, Settings
from tests.faults.lives import (
    EACH_STEP,
    Kind,
    acknowledged_step,
    kinds,
    leave_for_a_while,
    lost,
    next_words,
    side_by_side,
    wrong_end,
)
from tests.faults.processes import Server, session_of, wait_until
from tests.faults.small_runs import only_run

CUTS_PER_RUN = 8
SHUTDOWN, WITHOUT_JOURNAL = 0x8004587D, 2
"""Source: linux/fs/ext4/ext4.h, EXT4_IOC_SHUTDOWN and EXT4_GOING_FLAGS_NOLOGFLUSH."""

OPTIONS = ("auto_da_alloc", "noauto_da_alloc")
"""With the first, the default, ext4 syncs some files that programs rename without having synced them."""

REQUIRED = "no checkpoint that was told of is lost, none is damaged; the run ends like an uninterrupted one"


def measure(settings: Settings) -> list[Figure]:
    """Cuts the power of runs, half of them on each kind of disk."""
    cuts = [Cuts(settings, settings.folder(__name__), option, settings.power_cuts // 2) for option in OPTIONS]
    reason = what_is_missing(cuts[0].folder)
    if reason:
        return [Figure("power cut", 0, 0, REQUIRED, left_out=reason)]

    def work(server: Server, worker: int) -> None:
        for one in cuts[worker :: settings.processes]:
            one.work(server)

    side_by_side(min(settings.processes, len(OPTIONS)), cuts[0].folder, work)
    return [one.figure() for one in cuts]


def what_is_missing(folder: Path) -> str:
    """Why no disk can be made here, or nothing."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        return "only root may mount disks, on Linux"
    missing = [name for name in ("mkfs.ext4", "mount", "umount") if not shutil.which(name)]
    if missing:
        return f"no {', '.join(missing)} here"
    try:
        with Disk(folder / "trial"):
            return ""
    except (subprocess.CalledProcessError, OSError) as error:
        return f"a disk in a file cannot be mounted: {error}"


class Disk:
    """An ext4 file system in a file, mounted for the time of a `with` block.

    Args:
        folder: Of the file and of the mount point.
        option: Of the mount.

    The file is removed at the end unless it `is_wanted`.
    """

    def __init__(self, folder: Path, option: str = OPTIONS[0]) -> None:
        self.image, self.path = folder / "disk.img", folder / "disk"
        self.is_wanted = False
        # The journal is written every second: with the default of five, most runs would end before it ever is.
        self._options = f"loop,commit=1,{option}"

    def __enter__(self) -> "Disk":
        self.path.mkdir(parents=True)
        with open(self.image, "wb") as file:
            file.truncate(64 * 2**20)
        subprocess.run(["mkfs.ext4", "-q", "-F", self.image], check=True, capture_output=True)
        self._mount()
        return self

    def __exit__(self, *_error: object) -> None:
        with contextlib.suppress(subprocess.CalledProcessError):
            self._unmount()
        if not self.is_wanted:
            self.image.unlink()

    def cut(self) -> None:
        """Takes the power away: from now on every call on this disk fails."""
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, SHUTDOWN, struct.pack("I", WITHOUT_JOURNAL))
        finally:
            os.close(descriptor)

    def restart(self) -> None:
        """Gives the power back; the file system mends itself from what is on the disk."""
        self._unmount()
        self._mount()

    def _mount(self) -> None:
        subprocess.run(["mount", "-o", self._options, self.image, self.path], check=True, capture_output=True)

    def _unmount(self) -> None:
        done = wait_until(
            lambda: subprocess.run(["umount", self.path], capture_output=True).returncode == 0, seconds=10
        )
        if not done:
            subprocess.run(["umount", "-l", self.path], check=True, capture_output=True)


class Cuts:
    """Runs on disks of one kind, whose power is cut until it was often enough.

    Args:
        settings: What is drawn, and who is told.
        folder: Of the runs.
        option: Of the mount.
        num_cuts: How many are enough.
    """

    def __init__(self, settings: Settings, folder: Path, option: str, num_cuts: int) -> None:
        self.settings, self.folder, self.option, self.num_cuts = settings, folder, option, num_cuts
        self.num_done, self.num_runs, self.num_before_first = 0, 0, 0
        self.broken: list[str] = []

    def work(self, server: Server) -> None:
        """Lives runs of every kind in turn, but for those whose images lie in files."""
        made = kinds(server, self.folder / f"kinds-{self.option}", *EACH_STEP)[1:]
        while self.num_done < self.num_cuts:
            cwd = self.folder / f"{self.option}-{self.num_runs}"
            with Disk(cwd, self.option) as disk:
                self.live(server, made[self.num_runs % len(made)], cwd, disk)
            self.num_runs += 1

    def live(self, server: Server, kind: Kind, cwd: Path, disk: Disk) -> None:
        """One run from its first process to its end; what it says is written where the power stays."""
        rng, told, life = self.settings.random("power cuts", cwd.name), 0, 0
        while True:
            command = next_words(kind, disk.path, life)
            process = server.start([word.replace("=out", f"={disk.path}/out") for word in command], cwd=cwd)
            life += 1
            leave_for_a_while(process, kind, rng, faults_per_run=CUTS_PER_RUN)
            if self.num_done >= self.num_cuts or process.poll() is not None:
                break
            told = max(told, acknowledged_step(process.stdout()))
            disk.cut()
            process.send_signal(signal.SIGKILL)
            process.wait()
            wait_until(lambda process=process: not session_of(process.pid), seconds=10)
            disk.restart()
            told = self._look_at(disk, told, cwd)
        ended = process.wait()
        self._note(disk, cwd, wrong_end(kind, only_run(disk.path), ended))

    def _look_at(self, disk: Disk, told: int, cwd: Path) -> int:
        """Checks what the cut has left; returns the step from which on more may be lost."""
        run = only_run(disk.path)
        self.num_done += 1
        self.num_before_first += told == 0
        missing = lost(run, told)
        self._note(disk, cwd, missing)
        self._note(disk, cwd, damaged(run) if run else "")
        if self.num_done % 10 == 0:
            self.settings.say(f"{self.num_done} power cuts, {self.num_runs} runs, {self.option}")
        return 0 if missing else told

    def _note(self, disk: Disk, cwd: Path, sentence: str) -> None:
        if sentence:
            disk.is_wanted = True
            self.broken.append(f"{cwd}: {sentence}")
            self.settings.say(f"BROKEN  {cwd}: {sentence}")

    def figure(self) -> Figure:
        """Its row."""
        measured = f"{self.num_before_first} before a checkpoint was told of"
        name = f"power cut, ext4 {self.option}"
        return Figure(name, self.num_done, self.num_runs, REQUIRED, tuple(self.broken), measured)


def damaged(run: Path) -> str:
    """The checkpoints of a run whose content is not what their names say, in words, or nothing."""
    wrong = []
    for kind in ("step", "best"):
        for file in list_checkpoints(run / "checkpoints", kind):
            try:
                read_checkpoint(file.path)
            except CheckpointError:
                wrong.append(f"{file.path.name} ({file.path.stat().st_size} bytes)")
    return f"damaged: {', '.join(wrong)}" if wrong else ""
