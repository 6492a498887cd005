"""Processes that train together: what they compute equals what one process computes, to the order of sums."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cvtrain.engine.device import choose_device, shared_device_problem
from cvtrain.engine.distributed import Rank, rank_from_environment
from cvtrain.errors import ConfigError

HERE = Path(__file__).parent
PROGRAM, FUNCTIONS = HERE.parent / "ranks_for_tests.py", HERE / "shared_for_tests.py"


@pytest.fixture(scope="module")
def alone():
    """The functions, to be called in this one process."""
    spec = importlib.util.spec_from_file_location("shared_for_tests", FUNCTIONS)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def teams(tmp_path_factory):
    """What each process of a team of two and of a team of three has found."""
    found = {}
    for size in (2, 3):
        folder = tmp_path_factory.mktemp(f"team{size}")
        command = [sys.executable, str(PROGRAM), str(size), str(FUNCTIONS), "everything", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        found[size] = [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(size)]
    return found


@pytest.fixture(scope="module")
def pair(teams):
    return teams[2]


def assert_close(ours, theirs, tolerance=1e-11):
    """The same numbers in the same containers."""
    if isinstance(theirs, dict):
        assert ours.keys() == theirs.keys()
        ours, theirs = list(ours.values()), list(theirs.values())
    if isinstance(theirs, list | tuple):
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs, strict=True):
            assert_close(a, b, tolerance)
    elif isinstance(theirs, torch.Tensor):
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)
    else:
        assert ours == (theirs if theirs is None else pytest.approx(theirs, rel=tolerance, abs=tolerance))


# ------------------------------------------------------------------------------------------ the environment


def test_rank_is_what_the_launcher_exports():
    told = {
        "RANK": "5",
        "WORLD_SIZE": "8",
        "LOCAL_RANK": "1",
        "LOCAL_WORLD_SIZE": "4",
        "MASTER_ADDR": "a",
        "MASTER_PORT": "1",
    }
    rank = rank_from_environment(told)
    assert rank == Rank(5, 8, 1, 4)
    assert (rank.is_first, rank.leader) == (False, 4)
    assert rank_from_environment({k: v for k, v in told.items() if k != "LOCAL_WORLD_SIZE"}) == Rank(5, 8, 1, 8)
    for only_one in ({}, {"WORLD_SIZE": "4"}, {"RANK": "0", "WORLD_SIZE": "1"}):
        assert rank_from_environment(only_one) is None


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"MASTER_PORT": ""}, "has set no MASTER_PORT"),
        ({"LOCAL_RANK": "x"}, "LOCAL_RANK=x, which must be whole numbers"),
        ({"RANK": "2"}, "RANK=2 of WORLD_SIZE=2"),
    ],
)
def test_environment_that_makes_no_sense_is_refused(wrong, words):
    told = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "a", "MASTER_PORT": "1"}
    with pytest.raises(ConfigError, match=words):
        rank_from_environment(told | wrong)


@pytest.mark.parametrize(
    ("name", "num_gpus", "words"),
    [
        ("auto", 2, "4 processes were started on this machine, which has 2 CUDA devices: start 2"),
        ("cuda", 3, "which has 3 CUDA devices"),
        ("cuda:1", 8, "each process takes a GPU of its own: type trainer.device=cuda"),
        ("mps", 0, "an Apple GPU serves one process"),
        ("auto", 4, None),
        ("auto", 0, None),
        ("cpu", 1, None),
    ],
)
def test_processes_that_find_no_device_each_are_refused(name, num_gpus, words, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: num_gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: num_gpus)
    problem = shared_device_problem(name, num_local=4)
    assert problem is None if words is None else words in problem


def test_each_process_takes_a_device_of_its_own(monkeypatch):
    assert choose_device("auto", local_number=1) == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("auto", local_number=1) == torch.device("cuda:1")
    assert choose_device("cpu", local_number=1) == torch.device("cpu")


def test_cores_that_are_left_over_are_told_of(monkeypatch):
    from cvtrain.train_lines import idle_cores

    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: set(range(8)))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    (warning,) = idle_cores(Rank(0, 2, 0, 2), "cpu")
    assert "1 of 4 cores" in warning
    assert "OMP_NUM_THREADS=4" in warning
    assert idle_cores(Rank(0, 8, 0, 8), "cpu") == []
    assert idle_cores(Rank(0, 2, 0, 2), "cuda") == []


# ------------------------------------------------------------------------------------------ batch normalisation


@pytest.mark.parametrize("name", ["1d", "2d", "3d", "without weights", "counts", "keeps nothing", "forward of its own"])
def test_shared_batch_norm_equals_that_of_the_whole_batch(name, pair, alone):
    outputs, gradients, state = alone.normed(*alone.norm_and_images(name))
    shares = [found["shared_norms"][name, "torch.float64"] for found in pair]
    for key, expected in outputs.items():
        assert_close(torch.cat([share[0][key] for share in shares]), expected, 1e-9)
    for key, expected in gradients.items():
        assert_close(shares[0][1][key] + shares[1][1][key], expected, 1e-9)
    for share in shares:
        assert_close(share[2], state)


def test_shared_batch_norm_in_bfloat16_is_as_precise_as_torchs(pair, alone):
    norm, images = alone.norm_and_images("2d", torch.float32)
    outputs, _, state = alone.normed(norm, images.bfloat16())
    exact = alone.normed(*alone.norm_and_images("2d"))[0]
    shares = [found["shared_norms"]["2d", "torch.bfloat16"] for found in pair]
    for key in ("outputs 0", "gradient 0"):
        ours = torch.cat([share[0][key] for share in shares])
        assert ours.dtype == torch.bfloat16
        error, theirs = ((x.double() - exact[key]).abs().max() for x in (ours, outputs[key]))
        assert error <= 1.5 * theirs + 1e-3
    assert_close(shares[0][2], state, 1e-5)


def test_batch_norm_outside_of_a_step_sees_its_own_images_alone(pair, alone):
    for found, rows in zip(pair, (slice(2, 4), slice(4, 8)), strict=True):
        assert_close(found["shared_norms"]["alone"], alone.normed(*alone.norm_and_images("2d"), rows))


# ------------------------------------------------------------------------------------------ training


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("name", ["plain", "in parts, clipped, averaged", "mixup", "cutmix in parts", "small batches"])
def test_course_equals_that_of_one_process(name, size, teams, alone):
    expected = alone.course(**alone.COURSES[name])
    for found in teams[size]:
        assert_close(found["courses"][name], expected)
        assert list(found["courses"][name]["model"]) == list(expected["model"])
    first, *others = [found["courses"][name] for found in teams[size]]
    for other in others:
        assert all(torch.equal(first["model"][key], other["model"][key]) for key in first["model"])


@pytest.mark.parametrize("size", [2, 3])
def test_state_of_several_processes_goes_on_in_one_and_back(size, teams, alone):
    expected = alone.course(ema=0.7)
    for found in teams[size]:
        half = found["half"]
        assert_close(half["rows"], [(row[1], row[3]) for row in expected["rows"]][1:])
        assert_close(half["model"], expected["model"])
    later = alone.make(ema=0.7)
    later.load_state_dict(teams[size][0]["half"]["state"])
    rows = [(e.train_loss, e.val_loss) for e in later.run() if hasattr(e, "val_loss")]
    assert_close(rows, [(row[1], row[3]) for row in expected["rows"]][1:])
    assert_close(later.state_dict()["model"], expected["model"])


def test_dropout_differs_between_processes_and_steps_and_repeats(pair):
    (first, second, again), (other, *_) = (found["dropped"] for found in pair)
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    assert not torch.equal(first, other)


def test_overflow_in_one_process_lets_all_skip_the_step(pair):
    for found in pair:
        (scale, has_moved), (later_scale, moves) = found["overflow"]
        assert (has_moved, moves) == (False, True)
        assert scale == later_scale == 2.0**15  # torch begins at 2**16


def test_loss_that_is_not_finite_in_one_process_stops_all_in_the_same_step(teams):
    for size in (2, 3):
        for found in teams[size]:
            assert found["not_finite"][0] == "DivergedError"
            assert "the loss is not a finite number at step 3" in found["not_finite"][1]


def test_gradients_of_parameters_that_not_all_processes_use(pair):
    for found in pair:
        (extra, weight, bias, used), (_, no_weight, no_bias, _), (_, again, _, _) = found["sometimes_used"]
        assert extra == 0.5  # 0 and 0.5
        assert torch.equal(weight, torch.ones(2, 3))
        assert torch.equal(bias, torch.ones(2))
        assert torch.equal(used, torch.full((2, 3), 2.0))
        assert no_weight is None
        assert no_bias is None
        assert torch.equal(again, weight)


# ------------------------------------------------------------------------------------------ evaluation


@pytest.mark.parametrize("size", [2, 3])
def test_evaluation_counts_every_image_once_and_in_order(size, teams, alone):
    columns = ("labels", "probabilities", "predictions")
    for i, expected in enumerate(alone.evaluated(None)):
        first, *others = [found["evaluated"][i] for found in teams[size]]
        assert_close(first, expected)
        for other in others:
            assert all(other[column] is None for column in columns)
            assert {k: v for k, v in other.items() if k not in columns} == {
                k: v for k, v in first.items() if k not in columns
            }


def test_evaluation_that_one_process_stops_is_stopped_for_all(pair):
    assert [found["stopped"] for found in pair] == [True, True]


# ------------------------------------------------------------------------------------------ agreeing


def test_wishes_of_one_process_are_heard_by_all(pair):
    for found in pair:
        between, in_step = found["wishes"]
        assert between == (15, True, False)
        assert in_step == (0, False, True)


def test_state_is_handed_out_and_rows_come_in_order(pair):
    (state, rows), (same, nothing) = (found["handed_out"] for found in pair)
    assert torch.equal(state["a"], same["a"])
    assert state["b"] == same["b"] == [1, "two", None]
    assert torch.equal(rows, torch.ones(1, 2, dtype=torch.int64))
    assert nothing is None


def test_processes_with_other_data_are_refused_by_all(pair):
    for rank, found in enumerate(pair):
        kind, words = found["differs"]
        assert kind == "DataError"
        assert "do not have the same split" in words
        assert f"process {rank}: {rank}" in words
