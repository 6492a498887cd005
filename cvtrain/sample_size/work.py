"""The trainings of a sample-size sweep that are still to be done, at the same time where that is faster.

Knows which training comes before which; not what they are for.

On a CPU each training has one thread and a process of its own: on two cores that is 1.5 times the images per second of
one training after the other with two threads. It has one thread even where cores are left over, unless `sweep.threads`
says otherwise: sums of several threads differ in their last digits, and a table would depend on the cores, and on what
was left to do when a sweep was resumed.
Training several in one program (`torch.func.vmap`) was measured too: 1.0 times the speed of a loop for batches of 10,
0.75 times for batches of 128.
"""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from cvtrain import workers
from cvtrain.config import Config
from cvtrain.data.images import ImageData
from cvtrain.data.mapped import share
from cvtrain.engine.device import choose_device
from cvtrain.engine.runtime import available_cores
from cvtrain.errors import CvtrainError, OutputError
from cvtrain.record import memory_limit_of
from cvtrain.resume import first_line
from cvtrain.sample_size.cell import Study, train_cell
from cvtrain.sample_size.plan import Cell
from cvtrain.signals import StopRequest, described

MAX_JOBS_ON_A_GPU = 4
"""Each process holds some hundred megabytes of the GPU for itself, and small models gain little beyond this."""

_SHARED = ".shared"


def train_all(
    config: Config,
    cells: Sequence[Cell],
    data: ImageData,
    *,
    sweep_dir: Path,
    on_step: Callable[[str, int], None],
    stop: StopRequest,
) -> Iterator[workers.WorkResult]:
    """Trains every cell, the longest first, and yields each as it ends.

    Args:
        config: Of the sweep.
        cells: Those that are not done.
        data: Images of all sizes.
        sweep_dir: The folder of the sweep.
        on_step: Takes the name of a cell and the steps it has taken, now and then.
        stop: Set by a signal.

    Raises:
        OutputError: The disk is full or not writable.
        WorkerStartError: No worker process can be begun.
    """
    ordered = sorted(cells, key=lambda cell: (-cell.course.num_images, cell.per_class, cell.replicate))
    threads, slots = config["sweep"]["threads"], slots_of(config)
    items = [workers.WorkItem(cell.name, cell, slots=threads) for cell in ordered]
    folder = sweep_dir / _SHARED
    shutil.rmtree(folder, ignore_errors=True)  # of a process that was killed
    in_parallel = slots >= 2 * threads and len(items) > 1  # as `run_all` has it: else all is done in this process
    try:
        shared = share(data, _new(folder)) if in_parallel else data
        study = Study(config, sweep_dir, shared)
        yield from workers.run_all(train_cell, items, shared=study, slots=slots, on_message=on_step, stop=stop)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _new(folder: Path) -> Path:
    try:
        folder.mkdir()
    except OSError as error:
        raise OutputError(f"{folder} could not be made: {error.strerror}") from None
    return folder


def slots_of(config: Config) -> int:
    """Slots for all trainings at the same time, each of which takes `sweep.threads` of them.

    Args:
        config: Of the sweep.
    """
    jobs, threads = config["sweep"]["jobs"], config["sweep"]["threads"]
    kind = choose_device(config["trainer"]["device"]).type
    if jobs != "auto":
        return jobs * threads
    if kind == "cpu":
        return max(available_cores(), threads)
    return threads * (min(available_cores(), MAX_JOBS_ON_A_GPU) if kind == "cuda" else 1)


def failure_of(result: workers.WorkResult) -> tuple[int, str]:
    """The exit code and the reason of a training that has no result."""
    error = result.error
    if isinstance(error, CvtrainError):
        return error.exit_code, error.lines()[0]
    if isinstance(error, workers.UnexpectedError):
        return 1, first_line(error)
    if error is not None:
        limit = memory_limit_of(error)
        return (limit.exit_code, limit.message) if limit else (1, f"{type(error).__name__}: {first_line(error)}")
    if result.lost is not None and result.lost < 0:
        memory = "; if memory was short: sweep.jobs=1" if result.lost == -signal.SIGKILL else ""
        return 128 - result.lost, f"its process was ended by {described(-result.lost)}{memory}"
    return 1, f"its process ended with exit code {result.lost}"
