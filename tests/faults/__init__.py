"""Faults brought upon real training processes, and what the runs come to: `python -m tests.faults`."""
