"""Runs that are continued: from any step, in any folder, and those that must not be."""

import os
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from cvtrain.engine.checkpoint import list_checkpoints, load_newest, save_checkpoint
from cvtrain.outputs import RunDir
from tests.faults.exactness import Stage, stopped_at

STEPS = 15


@pytest.fixture
def stage(tmp_path):
    made = []

    def build_stage(words, name="run"):
        made.append(Stage(words, tmp_path / name))
        return made[-1]

    yield build_stage
    for one in made:
        one.run_dir.close()


def test_run_stopped_in_any_step_ends_like_uninterrupted_run(words, stage, end_of):
    run = stage(words("trainer.checkpoint.every_minutes=5", steps=STEPS))
    run.go()
    expected = end_of(run.run_dir.path)
    for k in range(STEPS + 1):
        run.run_dir.close()
        run.clear()
        assert run.go(signal_at=k) == stopped_at(k)
        assert run.go().num_steps == STEPS
        assert end_of(run.run_dir.path) == expected, f"stopped in step {k}"


@pytest.mark.parametrize(
    "settings",
    [
        ["optimizer=adamw", "scheduler=one_cycle", "augment=mixup", "trainer.accumulate=2", "trainer.grad_clip=1"],
        ["data.val_fraction=0", "trainer.early_stopping.patience=null", "scheduler=constant", "optimizer=muon"],
        [
            "trainer.early_stopping.patience=3",
            "trainer.early_stopping.metric=val_loss",
            "trainer.early_stopping.min_delta=0.15",
            "scheduler.patience=0",
            "scheduler.min_delta=0.1",
            "trainer.evaluate_every=2",
        ],
    ],
    ids=lambda settings: settings[0],
)
def test_run_stopped_in_every_step_ends_like_uninterrupted_run(settings, words, stage, end_of):
    whole, stopped = (stage(words(*settings, steps=20), name=name) for name in ("whole", "stopped"))
    expected = whole.go()
    if "trainer.early_stopping.patience=3" in settings:
        assert expected.stop_reason == "early_stopping"
    for k in range(1, expected.num_steps + 1):
        assert stopped.go(signal_at=k) == stopped_at(k)
    result = stopped.go()
    assert (result.num_steps, result.stop_reason) == (expected.num_steps, expected.stop_reason)
    assert result.selection.best == expected.selection.best
    assert torch.equal(result.test.probabilities, expected.test.probabilities)
    assert end_of(stopped.run_dir.path) == end_of(whole.run_dir.path)


def test_interrupted_evaluations_and_test_are_made_again(words, stage, end_of):
    whole, stopped = (stage(words(steps=STEPS), name=name) for name in ("whole", "stopped"))
    whole.go()
    for k in (7, 14, STEPS):
        assert stopped.go(signal_at=k, training=False) == stopped_at(k)
        assert stopped.run_dir.metrics_num_bytes() == 0 or k > 7, "an interrupted evaluation leaves no row"
    assert stopped.go(signal_at=STEPS, training=False) == stopped_at(STEPS), "in the test: the evaluation is done"
    assert stopped.go().stop_reason == "finished"
    assert end_of(stopped.run_dir.path) == end_of(whole.run_dir.path)


def contents(folder):
    """Every file below a folder but for the lock, which names the last process."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != ".lock"}


@pytest.fixture
def finished(server, words, only_run, tmp_path):
    """A finished run of 14 steps, and how to continue it."""
    assert server(words(steps=14), cwd=tmp_path).code == 0
    run = only_run(tmp_path)
    return run, lambda *more: server([f"resume={run}", *more], cwd=tmp_path)


def test_finished_run_says_so_and_stays_as_it_is(finished):
    run, resume = finished
    before = contents(run)
    ended = resume()
    assert ended.code == 0
    assert "this run is finished" in ended.stdout
    assert "trainer.steps=28" in ended.stdout
    assert ended.stderr == ""
    assert contents(run) == before


def test_finished_run_goes_on_when_it_is_made_longer(finished, read_card):
    run, resume = finished
    before = (run / "metrics.csv").read_text()
    ended = resume("trainer.steps=30")
    assert ended.code == 0, ended.stderr
    assert "goes on after step 14 of 30" in ended.stdout
    after = (run / "metrics.csv").read_text()
    assert after.startswith(before)
    assert after.count("epoch") == 1
    assert [line.split(",")[1] for line in after.splitlines()[1:]] == ["7", "14", "21", "28", "30"]
    assert (read_card(run)["status"], read_card(run)["steps"]) == ("done", 30)
    assert resume().stdout.startswith("this run is finished")


def test_run_that_stopped_early_goes_on_with_more_patience_or_more_steps(server, words, only_run, read_card, tmp_path):
    settings = ["trainer.early_stopping.patience=1", "optimizer.lr=1e-9", "trainer.ema=null", "model.dropout=0"]
    assert server(words(*settings, steps=70), cwd=tmp_path).code == 0
    run = only_run(tmp_path)
    first = read_card(run)
    assert first["stop_reason"] == "early_stopping"
    assert "this run is finished" in server([f"resume={run}"], cwd=tmp_path).stdout
    assert server([f"resume={run}", "trainer.early_stopping.patience=2"], cwd=tmp_path).code == 0
    assert read_card(run)["steps"] > first["steps"]
    patient = read_card(run)
    assert server([f"resume={run}", "trainer.steps=77"], cwd=tmp_path).code == 0
    assert read_card(run)["steps"] > patient["steps"]


def test_finished_run_cannot_be_made_shorter_than_it_is(finished):
    run, resume = finished
    before = contents(run)
    ended = resume("trainer.steps=7")
    assert ended.code == 2
    assert "trainer.steps=7: this run has taken 14 steps already" in ended.stderr
    assert contents(run) == before


def test_changed_settings_are_refused_with_key_and_both_values(finished):
    run, resume = finished
    before = contents(run)
    ended = resume("optimizer.lr=0.5", "seed=3", "model=lenet")
    assert ended.code == 2
    for words in ("optimizer.lr=0.5", "optimizer.lr=0.05", "seed=3", "seed=0", "model=lenet", "model=block_cnn"):
        assert words in ended.stderr
    assert len(ended.stderr.splitlines()) <= 6
    assert contents(run) == before


def test_edited_config_is_refused_with_key_and_both_values(finished):
    run, resume = finished
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(config.replace("momentum: 0.9", "momentum: 0.8"))
    ended = resume("trainer.steps=20")
    assert ended.code == 2
    assert "optimizer.momentum=0.8: this run was made with optimizer.momentum=0.9" in ended.stderr


def test_config_that_is_cut_short_is_refused(finished):
    run, resume = finished
    config = (run / "config.yaml").read_text().rstrip("\n")
    (run / "config.yaml").write_text(config.rpartition("\n")[0])
    ended = resume("trainer.steps=20")
    assert ended.code == 4
    assert "config.yaml is cut short" in ended.stderr


def test_folder_without_a_run_is_refused(server, tmp_path):
    (tmp_path / "empty").mkdir()
    for name in ("empty", "missing"):
        ended = server([f"resume={name}"], cwd=tmp_path)
        assert ended.code == 4
        assert f"{name} holds no run" in ended.stderr
    assert list((tmp_path / "empty").iterdir()) == []


def test_run_in_use_is_refused_with_the_process_that_uses_it(finished):
    run, resume = finished
    before = contents(run)
    owner = RunDir.reopen(run)
    ended = resume("trainer.steps=20")
    owner.close()
    assert ended.code == 2
    assert f"in use by process {os.getpid()} on " in ended.stderr
    assert contents(run) == before
    assert resume("trainer.steps=20").code == 0


def test_run_goes_on_in_a_moved_folder_and_through_a_link(finished, server, tmp_path):
    run, _ = finished
    run.rename(tmp_path / "moved")
    (tmp_path / "link").symlink_to(tmp_path / "moved")
    ended = server(["resume=link", "trainer.steps=28"], cwd=tmp_path)
    assert ended.code == 0, ended.stderr
    rows = (tmp_path / "moved" / "metrics.csv").read_text().splitlines()
    assert len(rows) == 1 + 4


def test_changed_data_are_refused_and_the_run_stays_as_it_is(server, words, only_run, images, tmp_path):
    root = images(tmp_path / "images")
    settings = ["data=image_folder", f"data.root={root}", f"data.cache_dir={tmp_path / 'cache'}"]
    rest = [word for word in words(steps=6) if not word.startswith("data")]
    assert server([*settings, *rest], cwd=tmp_path).code == 0
    run = only_run(tmp_path)
    before = contents(run)
    added = root / "train" / "a" / "one_more.png"
    shutil.copy(next((root / "train" / "b").iterdir()), added)
    ended = server([f"resume={run}", "trainer.steps=12"], cwd=tmp_path)
    assert ended.code == 4
    assert "the data have changed since this run was started" in ended.stderr
    assert contents(run) == before
    added.unlink()
    assert server([f"resume={run}", "trainer.steps=12"], cwd=tmp_path).code == 0


def test_damaged_checkpoint_is_passed_over_and_all_damaged_end_the_run(finished, end_of):
    run, resume = finished
    expected = end_of(run)
    newest, *_ = reversed(list_checkpoints(run / "checkpoints", "step"))
    content = bytearray(newest.path.read_bytes())
    content[len(content) // 2] ^= 16
    newest.path.write_bytes(content)
    (run / "run.json").write_text((run / "run.json").read_text().replace('"done"', '"running"'))
    ended = resume()
    assert ended.code == 0, ended.stderr
    assert f"{newest.path.name} is damaged" in ended.stdout
    assert (run / "checkpoints" / f"{newest.path.name}.bad").exists()
    assert end_of(run) == expected

    for file in list_checkpoints(run / "checkpoints", "step"):
        file.path.write_bytes(b"")
    for _ in range(2):  # neither starts from the beginning, the second time included
        ended = resume("trainer.steps=20")
        assert ended.code == 4
        assert "every step checkpoint" in ended.stderr
    assert (run / "metrics.csv").read_text().count("\n") == 3


@pytest.mark.long
def test_runs_started_at_once_get_folders_of_their_own(servers, words, tmp_path):
    settings = words(f"output_dir={tmp_path / 'out'}", steps=1)

    def three(server, number):
        return [server(settings, cwd=tmp_path / str(number)) for _ in range(3)]

    with ThreadPoolExecutor(2) as pool:
        ended = list(pool.map(three, servers, range(2)))
    runs = list(tmp_path.glob("out/train/*/*"))
    assert len(runs) == 6
    assert all(one.code == 0 for two in ended for one in two)
    assert all((run / "metrics.csv").read_text().count("\n") == 2 for run in runs)


def without_precision(state):
    del state["precision"]


def with_nan(state):
    next(iter(state["trainer"]["model"].values())).fill_(float("nan"))


def of_another_model(state):
    weights = state["trainer"]["model"]
    weights[next(iter(weights))] = torch.zeros(3, 3)


def with_words_for_numbers(state):
    state["trainer"]["sums"]["num_images"] = "many"
    state["seconds"] = "long"


def with_list_for_dictionary(state):
    state["trainer"] = [state["trainer"]]


@pytest.mark.parametrize(
    "change", [without_precision, with_nan, of_another_model, with_words_for_numbers, with_list_for_dictionary]
)
def test_checkpoint_that_is_whole_but_wrong_is_refused(change, finished):
    run, resume = finished
    folder = run / "checkpoints"
    state = load_newest(folder).state
    change(state)
    save_checkpoint(folder, state, step=15)
    before = contents(run)
    ended = resume("trainer.steps=20")
    assert ended.code == 4, ended.stderr
    assert "step-000000015" in ended.stderr
    assert len(ended.stderr.splitlines()) <= 6
    assert contents(run) == before


def test_run_without_a_checkpoint_starts_from_the_beginning_without_old_rows(finished, end_of):
    run, resume = finished
    expected = end_of(run)
    for path in (run / "checkpoints").iterdir():
        path.unlink()
    (run / "run.json").write_text((run / "run.json").read_text().replace('"done"', '"running"'))
    ended = resume()
    assert ended.code == 0, ended.stderr
    assert "there is no checkpoint yet: starts from the beginning" in ended.stdout
    assert end_of(run) == expected


def test_second_name_of_the_best_is_made_again(finished, read_card):
    run, resume = finished
    (best,) = list_checkpoints(run / "checkpoints", "best")
    assert best.step == read_card(run)["best"]["step"] == 14
    best.path.unlink()  # as after a kill between the two names
    (run / "run.json").write_text((run / "run.json").read_text().replace('"done"', '"running"'))
    assert resume().code == 0
    assert list_checkpoints(run / "checkpoints", "best") == [best]


def test_missing_best_checkpoint_is_told(finished):
    run, resume = finished
    folder = run / "checkpoints"
    newest = load_newest(folder)
    for path in [newest.path, *folder.glob("best-*")]:
        path.unlink()
    save_checkpoint(folder, {**newest.state, "is_best": False}, step=14)
    (run / "run.json").write_text((run / "run.json").read_text().replace('"done"', '"running"'))
    ended = resume()
    assert ended.code == 4
    assert "there is no best checkpoint" in ended.stderr
