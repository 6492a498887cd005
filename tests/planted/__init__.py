"""Bugs that are planted in copies of the package, one at a time, to see whether the tests find them."""
