"""The same seed gives the same run, whichever way images are read; another seed another."""

import pytest


@pytest.fixture
def run_once(servers, only_run, end_of, tmp_path):
    """Trains and returns how the run ended: `run_once(name, words)`."""

    def run(name, words):
        ended = servers[0](words, cwd=tmp_path / name)
        assert ended.code == 0, ended.stderr
        return end_of(only_run(tmp_path / name))

    return run


def test_same_seed_gives_same_run_and_another_seed_another(words, run_once):
    first, again, other = (
        run_once(name, words(f"seed={seed}", steps=20)) for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert first == again
    for name in ("model", "optimizer", "average", "metrics.csv", "best"):
        assert first[name] != other[name]


def test_readers_of_files_and_memory_give_the_same_run(words, run_once, images, tmp_path):
    """Every number of workers, and changes of it on the way: `test_exactness`."""
    root = images(tmp_path / "images")
    rest = [word for word in words("scheduler=constant", steps=12, every=4) if not word.startswith("data")]
    ways = {
        "memory": ["data.loader=memory", f"data.cache_dir={tmp_path / 'cache'}"],
        "files, 2 workers": ["data.loader=files", "data.num_workers=2"],
    }
    ends = [run_once(name, ["data=image_folder", f"data.root={root}", *how, *rest]) for name, how in ways.items()]
    assert ends[0] == ends[1]
