"""When the page of a sweep is replaced, and what is said where it cannot be.

Knows the folder of a sweep and the clock; not what the page shows.
"""

from __future__ import annotations

import time
from pathlib import Path

from cvtrain.outputs import RunDir

SECONDS_BETWEEN_PAGES, SECONDS_PER_JOB = 10.0, 0.05
"""A page of 20 jobs takes 0.1 s of one core, one of 1,000 jobs 1.3 s: so at most a fortieth of the time goes there."""


def replace_page(folder: Path) -> str | None:
    """Makes the page from the folder; what goes wrong costs a line, which is returned, and never the sweep."""
    try:
        from cvtrain.pages.sweep_page import write_sweep_page

        write_sweep_page(folder)
    except Exception as error:  # a full disk, files of somebody else's: the results are safe already
        reason = (str(error) or type(error).__name__).splitlines()[0]
        return f"the report of the sweep could not be written: {reason}"
    return None


def replace_page_if_due(folder: Path, *, num_jobs: int) -> str | None:
    """Makes the page unless it is new; returns why that failed, or None.

    Its age counts, whoever made it: drivers of the same sweep, and jobs of a launcher, share the work.
    """
    try:
        age = time.time() - RunDir(folder).report_path.stat().st_mtime
    except OSError:
        age = None
    if age is not None and age < SECONDS_BETWEEN_PAGES + SECONDS_PER_JOB * num_jobs:
        return None
    return replace_page(folder)
