"""Measurements that others can rerun: ratios within one call, never single times."""
