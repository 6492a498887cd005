"""A program that runs a function in several processes that train together, and keeps what each returns.

`python ranks_for_tests.py SIZE FILE FUNCTION FOLDER`: all is imported once, before the processes part.
"""

import importlib.util
import os
import socket
import sys
import traceback
from pathlib import Path


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def launcher_environment(rank, size, port):
    """What a launcher exports."""
    return {
        "RANK": str(rank),
        "WORLD_SIZE": str(size),
        "LOCAL_RANK": str(rank),
        "LOCAL_WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def main(size, file, function, folder):
    import torch

    spec = importlib.util.spec_from_file_location("functions", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    port, pids = free_port(), []
    for rank in range(int(size)):
        pid = os.fork()
        if pid:
            pids.append(pid)
            continue
        os.environ |= launcher_environment(rank, int(size), port)
        try:
            torch.save(getattr(module, function)(), Path(folder) / f"{rank}.pt")
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    sys.exit(max(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids))


if __name__ == "__main__":
    main(*sys.argv[1:])
