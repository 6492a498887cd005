"""Looking at files in worker processes, some of which do not survive it."""

import os

from cvtrain.data.audit.inspection import inspect_files


def inspect_or_die(shared, paths, **of_worker):
    if any("deadly" in path for path in paths):
        os._exit(3)
    return inspect_files(shared, paths, **of_worker)
