"""A package, so that `python -m tests.faults` means this folder even where an installed package is called `tests`."""
