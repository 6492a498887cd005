"""Trackers: programs of others that are told how runs go, each by a process of its own that reads the run folder.

Whatever such a program does (it hangs, ends its process, takes signals over, writes to the terminal), it does it beside
the training and not in it. Knows run folders and what its programs want; neither torch nor the console.
"""
