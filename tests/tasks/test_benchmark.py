"""`task=benchmark` from the command line: what it tells, for every way in which data come; never how long it took."""

import json

import pytest

from cvtrain.engine.phases import PHASES

QUICK = ["rounds=2", "round_seconds=0.001", "data.max_per_class=8", "trainer.device=cpu", "trainer.precision=fp32"]
SMALL = ["model=mlp", "model.hidden=[8]", "trainer.batch_size=16"]


@pytest.fixture
def benchmark(command, tmp_path):
    """Measures; returns the result of the command, the newest folder, benchmark.json and run.json."""

    def run(*words):
        result = command("task=benchmark", *QUICK, *words)
        folder = max((tmp_path / "outputs" / "benchmark").glob("*/*"), default=None)
        if folder is None or not (folder / "benchmark.json").exists():
            return result, folder, None, None
        return result, folder, *(json.loads((folder / name).read_text()) for name in ("benchmark.json", "run.json"))

    return run


def test_benchmark_tells_speed_shares_memory_and_arithmetic(benchmark):
    result, folder, found, card = benchmark(*SMALL)
    assert (result.code, result.errors) == (0, [])
    training, shares = found["training"], found["shares"]
    assert tuple(shares) == PHASES
    assert sum(shares.values()) == pytest.approx(1)
    assert all(share > 0 for share in shares.values())
    rates = [one["num_images"] / one["seconds"] for one in training["rounds"]]
    assert len(rates) == 2
    assert training["least"] == pytest.approx(min(rates))
    assert training["most"] == pytest.approx(max(rates))
    assert training["images_per_second"] == pytest.approx(sum(rates) / 2)  # the median of two
    assert found["num_parameters"] == 1024 * 8 + 8 + 8 * 10 + 10
    assert found["forward_flops_per_image"] == 2 * (1024 * 8 + 8 * 10)
    gflops = 3 * found["forward_flops_per_image"] * training["images_per_second"] / 1e9
    assert found["training_gflops_per_second"] == pytest.approx(gflops)
    assert found["evaluation"]["images_per_second"] > 0
    assert found["host_peak_bytes"] > 2**20
    assert (found["device_peak_bytes"], found["batch_sizes"]) == (None, [])
    assert (card["task"], card["status"]) == ("benchmark", "done")
    assert card["images_per_second"] == training["images_per_second"]
    assert not list(folder.rglob("*.ckpt"))
    for words in (f"{training['images_per_second']:,.0f} images/s", "backward", "optimizer", "benchmark.json"):
        assert words in result.out


def test_rounds_count_the_images_of_smaller_last_batches(benchmark):
    _, _, found, _ = benchmark(*SMALL, "trainer.batch_size=50", "rounds=4")  # 70 images to train on: 50 and 20
    num_steps = sum(one["num_steps"] for one in found["training"]["rounds"])
    assert sum(one["num_images"] for one in found["training"]["rounds"]) in {
        35 * num_steps + odd for odd in (0, 15, -15)
    }


def test_batch_sizes_have_a_row_each(benchmark):
    result, _, found, _ = benchmark(*SMALL, "batch_sizes=[4,32]")
    assert [row["batch_size"] for row in found["batch_sizes"]] == [4, 32]
    for row in found["batch_sizes"]:
        assert row["num_parts"] == 1
        first = row["training"]["rounds"][0]
        assert first["num_images"] <= row["batch_size"] * first["num_steps"]
    assert "batch sizes" in result.out
    assert "GPU memory" not in result.out


def test_files_parts_mixing_and_averages_are_measured_as_they_are_trained(benchmark, write_images, tmp_path):
    root = write_images(tmp_path / "photos", {"train/a": 12, "train/b": 12, "test/a": 2, "test/b": 2}, size=16)
    data = ["data=image_folder", f"data.root={root}", "data.loader=files", "data.num_workers=0", "augment=mixup"]
    trainer = ["trainer.batch_size=8", "trainer.accumulate=2", "trainer.ema=0.9", "trainer.precision=bf16"]
    result, _, found, _ = benchmark(*data, *trainer, "model=linear", "optimizer=adam")
    assert (result.code, result.errors) == (0, [])
    assert (found["num_parts"], found["precision"]) == (2, "bf16")
    assert sum(found["shares"].values()) == pytest.approx(1)
    assert "read by 0 processes" in result.out


def test_points_and_data_without_validation_are_measured(benchmark):
    result, _, found, _ = benchmark("data=spiral", "data.val_fraction=0", *SMALL)
    assert result.code == 0
    assert found["evaluation"] is None
    assert "no images" in result.out


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["trainer.epochs=3"], "trainer.epochs has no effect with task=benchmark"),
        (["trainer.checkpoint.keep=3"], "trainer.checkpoint.keep has no effect with task=benchmark"),
        (["batch_sizes=[2,64]", "trainer.accumulate=4"], "batch_sizes=[2]: trainer.accumulate=4 cannot part them"),
        (["batch_sizes=[0]"], "batch_sizes=[0]"),
        (["rounds=0"], "rounds=0"),
        (["round_seconds=0"], "round_seconds=0"),
    ],
)
def test_settings_that_cannot_be_are_refused_and_leave_nothing(benchmark, words, problem):
    result, folder, _, _ = benchmark(*SMALL, *words)
    assert (result.code, folder) == (2, None)
    assert any(problem in line for line in result.errors), result.errors


def test_a_loss_that_is_no_number_is_divergence(benchmark):
    result, _, found, _ = benchmark(*SMALL, "optimizer=sgd", "scheduler=constant", "optimizer.lr=1e30")
    assert (result.code, found) == (5, None)
