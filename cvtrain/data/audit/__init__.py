"""What is wrong with a data set before anything is learnt from it: damage, duplicates, leaks, labels, odd pictures.

Knows images, labels and splits; nothing of settings, consoles or files of results.
"""
