"""Whole runs for the tests of this folder: how to start them, stop them in mid-step, and compare what they leave."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))  # pytest imports a file at a time and knows no packages of tests
from tests.faults import processes, small_runs


@pytest.fixture(scope="session")
def servers(tmp_path_factory):
    """Two servers, for two cores."""
    servers = [processes.Server(tmp_path_factory.mktemp("server"), small_runs.WARM_UP) for _ in range(2)]
    yield servers
    for server in servers:
        server.close()


@pytest.fixture(scope="session")
def server(servers):
    """Runs command lines fast, each in a process of its own: `server(words, cwd=...)`."""
    return servers[0]


@pytest.fixture(scope="session")
def words():
    """The settings of a small run that has everything, some of them replaced: `words(..., steps=..., every=...)`."""
    return small_runs.words


@pytest.fixture(scope="session")
def start():
    """Starts `python -m cvtrain` for real: `with start(words, cwd=...) as process`."""
    return processes.started


@pytest.fixture(scope="session")
def only_run():
    """The one run folder below a working folder, or None."""
    return small_runs.only_run


@pytest.fixture(scope="session")
def end_of():
    """What a run has come to, apart from times, as hashes by name: equal runs give equal dictionaries."""
    return small_runs.end_of


@pytest.fixture(scope="session")
def uninterrupted(server, words, end_of, only_run, tmp_path_factory):
    """The end of a run that nobody stopped: `uninterrupted(steps=..., every=...)`; each is made once."""
    made: dict = {}

    def end(*more, **length):
        key = json.dumps([more, length])
        if key not in made:
            cwd: Path = tmp_path_factory.mktemp("uninterrupted")
            ended = server(words(*more, **length), cwd=cwd)
            assert ended.code == 0, ended.stderr
            made[key] = end_of(only_run(cwd))
        return made[key]

    return end


@pytest.fixture(scope="session")
def read_card():
    """The run card of a run, as strict JSON."""
    return small_runs.read_card


@pytest.fixture(scope="session")
def images():
    """Makes a small tree of PNG files: `images(folder)`."""
    return small_runs.write_images
