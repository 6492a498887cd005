import os
import subprocess
import sys

from cvtrain.engine import runtime

PRINT_POLICY = (
    "import os; from cvtrain.engine import runtime; os.getloadavg = lambda: ({load}, 0, 0);"
    "clock = iter([7.0, 7.0 + {busy}]); runtime._busy_seconds = lambda: next(clock);"
    "runtime.prepare(); print(os.environ.get('OMP_WAIT_POLICY'), 'torch' in __import__('sys').modules)"
)


def printed(code, **variables):
    env = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "MALLOC_"))} | variables
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout


def test_available_cores_are_those_of_this_process():
    assert 1 <= runtime.available_cores() <= (os.cpu_count() or 1)
    if hasattr(os, "sched_setaffinity"):
        cores = os.sched_getaffinity(0)
        try:
            os.sched_setaffinity(0, {min(cores)})
            assert runtime.available_cores() == 1
        finally:
            os.sched_setaffinity(0, cores)


def test_busy_is_a_plain_answer():
    assert runtime.machine_is_busy() in (True, False)


def test_threads_wait_passively_on_a_busy_machine_unless_told_otherwise():
    assert printed(PRINT_POLICY.format(load=9, busy=1)) == "passive False\n"
    assert printed(PRINT_POLICY.format(load=9, busy=1), OMP_WAIT_POLICY="active") == "active False\n"


def test_threads_spin_on_a_quiet_machine_and_in_the_quiet_after_a_long_job():
    assert printed(PRINT_POLICY.format(load=0, busy=1)) == "None False\n"
    assert printed(PRINT_POLICY.format(load=9, busy=0)) == "None False\n"


def test_preparing_twice_does_no_harm():
    assert printed("from cvtrain.engine import runtime; runtime.prepare(); runtime.prepare(); print(1)") == "1\n"
