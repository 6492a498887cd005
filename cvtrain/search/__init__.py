"""A search for settings: what may be chosen, what was tried, what comes next, which jobs are not worth their end."""
