"""The textbook that the sample-size sweep is measured against does as it says, and the table's arithmetic holds."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def textbook(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    import benchmarks.textbook_sweep

    return benchmarks.textbook_sweep


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    import benchmarks.sample_size

    return benchmarks.sample_size


@pytest.fixture
def photographs(textbook, write_images, tmp_path):
    root = write_images(tmp_path, {"train/cat": 25, "train/dog": 20, "test/cat": 6, "test/dog": 6})
    return textbook.Photographs(root, augment=True)


@pytest.mark.parametrize(("per_class", "num_val"), [(2, 1), (10, 2), (20, 4)])
def test_a_fifth_of_each_class_validates_and_no_image_does_both(photographs, per_class, num_val):
    targets = np.array(photographs.train.targets)
    train, val = photographs.part(per_class, seed=0)
    assert np.bincount(targets[train]).tolist() == [per_class - num_val] * 2
    assert np.bincount(targets[val]).tolist() == [num_val] * 2
    assert not set(train) & set(val)


def test_only_training_images_are_augmented(photographs):
    torch.manual_seed(0)
    assert not all(torch.equal(photographs.train[i][0], photographs.val[i][0]) for i in range(10))
    assert all(torch.equal(photographs.val[i][0], photographs.val[i][0]) for i in range(10))


def test_textbook_stops_when_patience_ends_and_tests_its_best_weights(textbook, photographs):
    torch.manual_seed(0)
    network = textbook.make_network("simple_cnn", num_classes=2)
    setup = textbook.Setup(num_workers=0, num_threads=1)
    how = {"setup": setup, "test_setup": setup, "lr": 0.05, "seed": 0}
    training = textbook.train_size(photographs, network, per_class=20, **how)
    assert (training.train_size, training.val_size) == (32, 8)
    assert training.epochs == training.best_epoch + 3
    _, val_loader = photographs.loaders(20, num_workers=0, seed=0)
    assert textbook.accuracy_on(network, val_loader) == training.val_accuracy
    test_loader = textbook.loader_of(photographs.test, num_workers=0)
    assert textbook.accuracy_on(network, test_loader) == training.test_accuracy


def test_other_setups_are_taken_only_where_they_are_clearly_faster(textbook):
    usual, alone = textbook.Setup(num_workers=2, num_threads=2), textbook.Setup(num_workers=0, num_threads=1)
    for seconds, expected in ((9.4, alone), (9.6, usual)):
        found = textbook.fastest_setup(lambda setup, s=seconds: s if setup == alone else 10.0, own_threads=2)
        assert found == expected


def test_quicker_of_two_trials_counts(textbook):
    times = iter([10, 10, 10, 10, 10, 30, 10, 10, 10, 10, 10, 5])
    assert textbook.fastest_setup(lambda setup: next(times), own_threads=2) == textbook.Setup(0, 1)


def test_ratio_at_equal_epochs_scales_the_epochs_and_nothing_else(benchmark):
    def size(per_class, epochs, seconds, epoch_seconds):
        return benchmark.Size(per_class, epochs, 80 * epochs, seconds, epoch_seconds, 0.5)

    textbook = benchmark.Sweep("textbook", 20.0, 0.0, [size(10, 4, 5.0, 2.0), size(20, 10, 9.0, 6.0)])
    assert benchmark.seconds_at(textbook, {10: 4, 20: 10}) == 20.0
    assert benchmark.seconds_at(textbook, {10: 8, 20: 5}) == pytest.approx(20 + 2 - 3)


def test_line_of_the_sweeps_table_becomes_epochs_and_images(benchmark):
    line = {"per_class": "50", "train_size": "400", "steps": "28", "seconds": "3.5", "test_accuracy": "0.31"}
    assert benchmark.size_of(line) == benchmark.Size(50, 7, 2800, 3.5, None, 0.31)


def test_command_that_fails_ends_the_benchmark_with_its_last_words(benchmark, tmp_path):
    command = [sys.executable, "-c", "print('out of luck'); raise SystemExit(3)"]
    with pytest.raises(SystemExit, match=r"ended with 3:\nout of luck"):
        benchmark.run(command, folder=tmp_path, variables={})


def test_benchmark_reads_what_the_textbook_writes(textbook, benchmark, write_images, tmp_path, monkeypatch, capsys):
    write_images(tmp_path, {"train/cat": 10, "train/dog": 10, "test/cat": 3, "test/dog": 3})
    output_path = tmp_path / "result.json"
    words = ["--sizes", "5,10", "--model", "simple_cnn", "--augment", "none"]
    monkeypatch.setattr(textbook, "NUM_WORKERS", (0,))  # starting processes would take seconds
    monkeypatch.setattr(sys, "argv", ["", "--data", str(tmp_path), *words, "--output", str(output_path)])
    textbook.main()
    sweep = benchmark.read_textbook(output_path, seconds=100.0, foreign_cores=0.0)
    assert [size.per_class for size in sweep.sizes] == [5, 10]
    assert [size.images for size in sweep.sizes] == [8 * sweep.sizes[0].epochs, 16 * sweep.sizes[1].epochs]
    assert all(0 < size.epoch_seconds < size.seconds for size in sweep.sizes)
    assert sum(size.seconds for size in sweep.sizes) < sweep.seconds < 100  # the trials are taken off
    assert "textbook, test: 0 loader processes" in capsys.readouterr().out
