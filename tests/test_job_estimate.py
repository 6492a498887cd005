import heapq
import random
from statistics import median

import pytest

from cvtrain.job_estimate import MIN_SHARE, RunningJob, coarse, remaining_seconds

STARTUP_SECONDS = 3.0


def running(elapsed, share, *, share_before=0.0):
    """A job with the usual time to start."""
    training = max(elapsed - STARTUP_SECONDS, 0.0)
    return RunningJob(elapsed, training_seconds=training, share_before=share_before, share_done=share)


class Schedule:
    """Jobs of known lengths on slots, each started where one gets free first: what the estimate is held against.

    Args:
        lengths: Seconds of each job, in the order in which they start.
        num_slots: Jobs at the same time.
    """

    def __init__(self, lengths, *, num_slots):
        self.num_slots, self.jobs, free_at = num_slots, [], [0.0] * num_slots
        for length in lengths:
            begin = free_at[0]
            heapq.heapreplace(free_at, begin + length)
            self.jobs.append((begin, begin + length))
        self.end = max(free_at)

    def estimate(self, now):
        """What is estimated at a moment."""
        going = [
            running(now - begin, max(now - begin - STARTUP_SECONDS, 0) / (end - begin - STARTUP_SECONDS))
            for begin, end in self.jobs
            if begin <= now < end
        ]
        return remaining_seconds(
            [end - begin for begin, end in self.jobs if end <= now],
            going,
            num_waiting=sum(begin > now for begin, _ in self.jobs),
            num_slots=self.num_slots,
        )

    def error(self, share):
        """Of the estimate at a share of the whole time, as a share of the whole time."""
        now = share * self.end
        return abs(self.estimate(now) - (self.end - now)) / self.end


def schedules(*, spread, num_jobs=40):
    """Many of them; the logarithm of lengths has the standard deviation `spread`."""
    for seed in range(30):
        rng = random.Random(seed)
        for num_slots in (1, 2, 8):
            lengths = [STARTUP_SECONDS + rng.lognormvariate(4, spread) for _ in range(num_jobs)]
            yield Schedule(lengths, num_slots=num_slots)


# ------------------------------------------------------------------------------------------------ simulated


@pytest.mark.parametrize(
    ("spread", "share", "error"),
    [(0.0, 0.1, 1e-9), (0.3, 0.1, 0.1), (0.3, 0.5, 0.03), (1.0, 0.25, 0.2), (1.0, 0.5, 0.1), (1.0, 0.9, 0.01)],
)
def test_estimate_errs_by_a_stated_share_of_the_whole_time_at_most_in_half_of_all_sweeps(spread, share, error):
    assert median(schedule.error(share) for schedule in schedules(spread=spread)) <= error


@pytest.mark.parametrize("spread", [0.0, 0.3, 1.0])
def test_estimate_is_never_negative_and_comes_to_nothing(spread):
    for schedule in schedules(spread=spread):
        estimates = [schedule.estimate(schedule.end * i / 50) for i in range(51)]
        assert all(estimate is None or estimate >= 0 for estimate in estimates)
        assert estimates[-1] == pytest.approx(0, abs=1e-9)
        assert schedule.error(0.99) <= 0.05


def test_estimate_from_jobs_of_one_length_is_exact_once_one_is_seen():
    schedule = Schedule([60.0] * 20, num_slots=3)
    for now in (10.0, 59.0, 61.0, 200.0, 400.0):
        assert schedule.estimate(now) == pytest.approx(schedule.end - now)


# ------------------------------------------------------------------------------------------------ by hand


def test_nothing_is_estimated_from_nothing():
    assert remaining_seconds([], [], num_waiting=5, num_slots=2) is None
    assert remaining_seconds([], [running(2.0, 0.0)], num_waiting=5, num_slots=2) is None
    assert remaining_seconds([], [running(60.0, MIN_SHARE / 2)], num_waiting=0, num_slots=2) is None


def test_nothing_remains_of_nothing():
    assert remaining_seconds([], [], num_waiting=0, num_slots=2) == 0
    assert remaining_seconds([5.0], [], num_waiting=0, num_slots=2) == 0


@pytest.mark.parametrize(("num_waiting", "num_slots", "seconds"), [(5, 1, 50), (5, 2, 30), (5, 5, 10), (5, 9, 10)])
def test_waiting_jobs_are_as_long_as_the_mean_and_share_the_slots(num_waiting, num_slots, seconds):
    assert remaining_seconds([5.0, 15.0], [], num_waiting=num_waiting, num_slots=num_slots) == seconds


def test_start_of_a_job_is_not_taken_for_slow_steps():
    job = running(STARTUP_SECONDS + 6, 0.1)  # 6 seconds for a tenth: 54 to go, not 81
    assert remaining_seconds([], [job], num_waiting=0, num_slots=1) == pytest.approx(54)
    assert job.whole_seconds == pytest.approx(63)


def test_resumed_job_is_judged_by_the_steps_that_it_was_seen_to_take():
    job = running(STARTUP_SECONDS + 10, 0.9, share_before=0.8)
    assert remaining_seconds([], [job], num_waiting=0, num_slots=1) == pytest.approx(10)
    assert job.whole_seconds == pytest.approx(103)  # a waiting one starts at its first step


def test_long_job_at_the_end_is_waited_for():
    assert remaining_seconds([10.0] * 9, [running(103.0, 0.1)], num_waiting=3, num_slots=2) == pytest.approx(900)


def test_job_that_tells_nothing_and_lasts_longer_than_others_makes_nothing_negative():
    assert remaining_seconds([10.0], [RunningJob(500.0)], num_waiting=0, num_slots=1) == 0


def test_more_jobs_than_slots_do_no_harm():
    jobs = [running(13.0, 0.5) for _ in range(3)]
    assert remaining_seconds([], jobs, num_waiting=1, num_slots=2) == pytest.approx(10 + 23)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "10 s"),
        (14, "10 s"),
        (54, "50 s"),
        (56, "1 min"),
        (100, "2 min"),
        (12.4 * 60, "12 min"),
        (17 * 60, "15 min"),
        (48 * 60, "50 min"),
        (88 * 60, "1 h 30 min"),
        (2 * 3600 + 200, "2 h"),
        (3.4 * 3600, "3 h 30 min"),
        (9.8 * 3600, "10 h"),
        (14.4 * 3600, "14 h"),
        (47.9 * 3600, "2 days"),
        (73 * 3600, "3 days"),
    ],
)
def test_remaining_time_is_said_coarsely(seconds, words):
    assert coarse(seconds) == words


def test_more_seconds_are_never_said_to_be_fewer():
    units = {"s": 1, "min": 60, "h": 3600, "days": 86400}

    def value(words):
        parts = words.split()
        return sum(int(number) * units[unit] for number, unit in zip(parts[::2], parts[1::2], strict=True))

    values = [value(coarse(seconds)) for seconds in range(0, 400_000, 7)]
    assert values == sorted(values)
    assert all(abs(value(coarse(s)) - s) <= max(s / 3, 10) for s in range(0, 400_000, 7))
