import signal

import pytest

from cvtrain.isolation.endings import OutOfMemoryKills, ending_in_words, seconds_in_words


@pytest.mark.parametrize(
    ("exit_code", "words"),
    [
        (0, "ended without a result"),
        (3, "ended with exit code 3"),
        (-9, "killed by signal 9 (SIGKILL)"),
        (-15, "killed by signal 15 (SIGTERM)"),
        (-11, "segmentation fault: signal 11 (SIGSEGV)"),
        (-signal.SIGRTMIN - 1, f"killed by signal {signal.SIGRTMIN + 1}"),
    ],
)
def test_end_of_a_process_is_told_in_words(exit_code, words):
    assert ending_in_words(exit_code) == words


def test_memory_is_asked_about_where_it_is_likely():
    assert ending_in_words(-9, is_out_of_memory=True) == "killed by signal 9 (SIGKILL); out of memory?"


@pytest.mark.parametrize(("seconds", "words"), [(600, "10 min"), (90, "90 s"), (0.5, "0.5 s"), (60.0, "1 min")])
def test_seconds_are_told_in_words(seconds, words):
    assert seconds_in_words(seconds) == words


@pytest.mark.parametrize(
    "text",
    [
        "low 0\noom 7\noom_kill {}\noom_group_kill 0\n",  # memory.events
        "oom_kill_disable 0\nunder_oom 0\noom_kill {}\n",  # memory.oom_control
        "pgpgin 55\noom_kill {}\n",  # /proc/vmstat
    ],
)
def test_each_kill_for_want_of_memory_explains_one_death(tmp_path, text):
    path = tmp_path / "counter"
    path.write_text(text.format(5))
    kills = OutOfMemoryKills([tmp_path / "none", path])
    assert not kills.take_one()
    path.write_text(text.format(7))
    assert [kills.take_one() for _ in range(4)] == [True, True, False, False]


def test_machine_that_does_not_count_explains_nothing(tmp_path):
    assert not OutOfMemoryKills([tmp_path / "none"]).take_one()
