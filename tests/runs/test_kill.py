"""Runs that are killed with SIGKILL, and end as if they had not been; `python -m tests.faults` kills more of them."""

import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.faults import starts
from tests.faults.figures import Settings
from tests.faults.kills import Killings
from tests.faults.lives import last_step_told, remains, saved_step
from tests.faults.processes import session_of, wait_until
from tests.faults.small_runs import files_words, kinds_of_calls, leftovers

NUM_KILLS = 6


def test_runs_killed_at_random_moments_end_like_uninterrupted_runs(servers, tmp_path):
    killings = Killings(Settings(tmp_path, patience_seconds=60), tmp_path, NUM_KILLS, real_share=0, num_steps=40)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(killings.work, servers, range(2)))
    figures = killings.figures()
    assert sum(figure.num_faults for figure in figures) >= NUM_KILLS
    assert sum(figure.num_runs for figure in figures) >= 2
    assert [figure.broken for figure in figures if figure.broken] == []


def test_run_killed_at_a_call_that_writes_ends_like_uninterrupted_run(servers, words, only_run, end_of, tmp_path):
    command = words("trainer.checkpoint.every_minutes=1e-9", steps=4, every=2)
    whole = servers[0](command, cwd=tmp_path / "whole")
    expected = end_of(only_run(tmp_path / "whole"))
    assert len(whole.calls) >= 60

    def killed_and_continued(server, number):
        cwd = tmp_path / str(number)
        assert server(command, cwd=cwd, kind="kill", first=number, last=number).code == -9
        run = only_run(cwd)
        if run is None or not (run / "config.yaml").exists():
            return False  # killed before it was a run at all
        resumed = server([f"resume={run}"], cwd=cwd)
        assert resumed.code == 0, (number, whole.calls[number - 1], resumed.stderr)
        assert end_of(run) == expected, (number, whole.calls[number - 1])
        assert leftovers(run) == []
        return True

    def every_second(first):
        return sum(killed_and_continued(servers[first], number) for number in kinds_of_calls(whole.calls)[first::4])

    with ThreadPoolExecutor(2) as pool:
        num_continued = sum(pool.map(every_second, range(2)))
    assert num_continued >= 4


def test_killed_run_with_workers_can_be_continued_at_once(server, images, only_run, tmp_path):
    command = files_words(images(tmp_path / "images"), "trainer.log_every=1", workers=2, steps=100_000)
    process = server.start(command, cwd=tmp_path)
    assert wait_until(lambda: last_step_told(process.stdout()) > 7, seconds=60)
    members = session_of(process.pid)
    process.send_signal(signal.SIGKILL)
    assert process.wait().code == -signal.SIGKILL
    run = only_run(tmp_path)
    more = [f"trainer.steps={saved_step(run) + 2}", "data.num_workers=0"]
    ended = server([f"resume={run}", *more], cwd=tmp_path / "resumed")  # its workers may not have left yet
    assert ended.code == 0, ended.stderr
    assert len(members) >= 3
    assert remains(process, members, seconds=60) == ""


@pytest.mark.parametrize("measure", [starts.two_in_one_folder, starts.left_locks])
def test_folder_belongs_to_the_living_process_that_has_locked_it(measure, server, tmp_path):
    assert measure(server, tmp_path, 2).broken == ()
