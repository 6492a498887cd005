"""How much memory is free: of the machine, and of what a container or a job of a cluster may use of it.

Knows files of the kernel alone.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class ControlGroup:
    """What limits the memory of some processes together, with either version of Linux's control groups.

    Source: the kernel's Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst.

    Args:
        folder: Of the group.
        is_first_version: Whether its files have the names of version 1.
    """

    folder: Path
    is_first_version: bool = False

    @property
    def oom_path(self) -> Path:
        """The file that counts the processes that were killed in it for want of memory."""
        return self.folder / ("memory.oom_control" if self.is_first_version else "memory.events")

    def free_bytes(self) -> int | None:
        """What its processes may still take; None where nothing limits them. Read files that nobody writes are free."""
        limit, used, unused = (
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            if self.is_first_version
            else ("memory.max", "memory.current", "inactive_file")
        )
        numbers = [numbers_of(self.folder / name).get(None) for name in (limit, used)]
        if None in numbers:
            return None
        return max(0, numbers[0] - numbers[1] + numbers_of(self.folder / "memory.stat").get(unused, 0))


def control_groups() -> list[ControlGroup]:
    """The groups that this process is in, from the innermost; some of them may not be there."""
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []
    found = []
    for line in lines:
        _, controllers, name = line.split(":", 2)
        is_first_version = "memory" in controllers.split(",")
        if is_first_version or not controllers:
            root = _CGROUPS / "memory" if is_first_version else _CGROUPS
            # In a container a group may be named as its host sees it, and stand at the root.
            folders = [root / name.lstrip("/"), *(root / name.lstrip("/")).parents]
            found += [ControlGroup(folder, is_first_version) for folder in folders if folder.is_relative_to(root)]
    return found


def available_memory_bytes() -> int | None:
    """Memory that can be taken without swapping; None where the platform does not say."""
    free = [group.free_bytes() for group in control_groups()]
    free.append(numbers_of(Path("/proc/meminfo")).get("MemAvailable:"))
    known = [number for number in free if number is not None]
    if known:
        return min(known)
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return None


def numbers_of(path: Path) -> dict[str | None, int]:
    """The numbers of a file of the kernel by the word before them; a number that stands alone by None."""
    found: dict[str | None, int] = {}
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError):
        return found
    for words in map(str.split, lines):
        numbers = [int(word) << (10 if words[-1] == "kB" else 0) for word in words if word.isdigit()]
        if numbers:
            found[None if words[0].isdigit() else words[0]] = numbers[0]
    return found
