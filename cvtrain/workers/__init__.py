"""Many pieces of work at the same time, each in a process that is used again for the next.

Knows neither what the work is nor torch; it hands out cores, carries messages and results, and passes signals on.

A process has what two threads of one process lack: an interpreter, an allocator and a signal handler of its own. It is
begun afresh ("spawn"): a copy of a process that has threads, or that has used CUDA, would not work.
"""

from cvtrain.workers.crew import run_all
from cvtrain.workers.items import UnexpectedError, WorkerStartError, WorkFn, WorkItem, WorkResult

__all__ = ["UnexpectedError", "WorkFn", "WorkItem", "WorkResult", "WorkerStartError", "run_all"]
