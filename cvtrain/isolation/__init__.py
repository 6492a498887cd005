"""Calls of a function, each in a process of its own: whatever ends one harms no other.

Knows neither what is called nor torch (but for the number of GPUs); it hands out cores and GPUs, carries messages and
results, passes signals on, and says in words how a process died. `cvtrain.workers` uses a process again for the next
piece of work, which starts faster and shares more.
"""

from cvtrain.isolation.calls import Call, CallFn, CallResult, CallSource, Patience, Slot
from cvtrain.isolation.crew import run_isolated
from cvtrain.isolation.slots import slots_of
from cvtrain.workers import WorkerStartError

__all__ = [
    "Call",
    "CallFn",
    "CallResult",
    "CallSource",
    "Patience",
    "Slot",
    "WorkerStartError",
    "run_isolated",
    "slots_of",
]
