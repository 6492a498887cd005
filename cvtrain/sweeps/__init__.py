"""What the jobs of a sweep say together: the leaderboard, the arms, the verdict.

Knows run cards and figures; neither how jobs are run nor how tables are printed.
"""
