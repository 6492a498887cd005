"""What measured figures say: differences, intervals and tests.

Knows arrays only, neither runs nor files.
"""
