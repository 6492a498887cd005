"""The benchmark of a multirun lets all contestants do the same jobs, and says so where they did not."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

WRITES_A_CARD = """
import json, pathlib, sys
folder = pathlib.Path(sys.argv[-1].partition("=")[2]) / sys.argv[1]
folder.mkdir(parents=True)
(folder / "run.json").write_text(json.dumps({"status": sys.argv[2], "seconds": 0.25}))
"""


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    import benchmarks.multirun

    return benchmarks.multirun


def job(name, status="done"):
    return [sys.executable, "-c", WRITES_A_CARD, name, status]


def test_loop_does_the_jobs_of_the_grid(benchmark):
    from cvtrain.jobs.grid import combinations

    commands = benchmark.contestants(["model=linear"], num_jobs=3)
    (one,), (two,) = commands["--multirun sweep.jobs=1"], commands["--multirun sweep.jobs=2"]
    jobs = [(*words[:-1],) for words in combinations(one[len(benchmark.CVTRAIN) + 1 :])]
    assert jobs == [tuple(command[len(benchmark.CVTRAIN) :]) for command in commands[benchmark.LOOP]]
    assert (one[-1], two[-1], one[:-1]) == ("sweep.jobs=1", "sweep.jobs=2", two[:-1])


def test_turn_adds_up_its_commands_and_their_run_cards(benchmark):
    turn = benchmark.take_turn([job("a"), job("b")], num_jobs=2, variables={})
    assert turn.run_seconds == 0.5
    assert turn.seconds > 0
    assert turn.foreign_cores >= 0


@pytest.mark.parametrize("commands", [[job("a")], [job("a"), job("b", "failed")]])
def test_jobs_that_were_not_done_end_the_benchmark(benchmark, commands):
    with pytest.raises(SystemExit, match="1 of 2 jobs done"):
        benchmark.take_turn(commands, num_jobs=2, variables={})


def test_each_round_is_begun_by_another_contestant(benchmark):
    assert ["".join(benchmark.rotated("xyz", by=i)) for i in range(4)] == ["xyz", "yzx", "zxy", "xyz"]


def test_table_gives_ratios_within_rounds(benchmark, capsys):
    def turns(*seconds):
        return [benchmark.Turn(s, s / 2, foreign) for s, foreign in zip(seconds, (0.0, 0.0, 0.4), strict=True)]

    own = {benchmark.LOOP: turns(10, 20, 30), "--multirun sweep.jobs=1": turns(10, 10, 10)}
    benchmark.report("tiny", own | {"--multirun sweep.jobs=2": turns(5, 5, 5)}, num_jobs=2)
    assert capsys.readouterr().out.splitlines()[-3:] == [
        "| a loop in the shell | 20.0 (10.0-30.0) |  | 10.00 (5.00-15.00) | 5.00 (2.50-7.50) | 1 of 3 |",
        "| --multirun sweep.jobs=1 | 10.0 (10.0-10.0) | 2.00 (1.00-3.00) | 5.00 (5.00-5.00)"
        " | 2.50 (2.50-2.50) | 1 of 3 |",
        "| --multirun sweep.jobs=2 | 5.0 (5.0-5.0) | 4.00 (2.00-6.00) | 2.50 (2.50-2.50) |  | 1 of 3 |",
    ]
