"""Runs that are tracked: what trackers have kept of them is read back as their own programs read it."""

import csv
import json
import os
import shutil
import signal
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import pytest
import torch

from cvtrain.trackers.following import Following
from cvtrain.trackers.tracked_run import TrackedRun
from tests.trackers.tracked_for_tests import (
    TINY,
    journal,
    mlflow_client,
    mlflow_steps,
    start,
    steps_of,
    tensorboard_events,
    tensorboard_steps,
    track,
    wait_until,
)
from tests.trackers.wandb_records_for_tests import wandb_parts

for package in ("tensorboard", "mlflow", "wandb"):
    pytest.importorskip(package, reason=f"needs {package}", exc_type=ImportError)

ALL = "tracker=[tensorboard,mlflow,wandb]"


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A run of two epochs that all trackers were told of."""
    words = [*TINY, "trainer.epochs=2", "optimizer.lr=0.01", "tracker.mlflow.tags={team: vision}"]
    words += ["tracker.wandb.checkpoints=best", "tracker.wandb.tags=[a,b]"]
    done = track(tmp_path_factory.mktemp("tracked"), ALL, *words)
    assert done.code == 0, done.err
    return done


@pytest.fixture(scope="module")
def rows(done):
    with open(done.run / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_run_card_names_each_tracked_run(done):
    trackers = done.card["trackers"]
    assert set(trackers) == {"tensorboard", "mlflow", "wandb"}
    assert {t["status"] for t in trackers.values()} == {"done"}
    assert trackers["mlflow"]["run_id"] == mlflow_client(done.run)[1]
    assert trackers["wandb"]["run_id"] == wandb_parts(done.run)[0].run_id


def test_nothing_of_the_libraries_reaches_the_terminal(done):
    assert done.err == ""
    assert not any(word in done.out.lower() for word in ("wandb:", "info", "sqlalchemy", "warning"))


def test_event_files_hold_every_row_and_the_test(done, rows):
    events = tensorboard_events(done.run / "tensorboard")
    for name in ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "lr", "images_per_second", "epoch"):
        found = [(e.step, e.value) for e in events.Scalars(name)]
        assert [step for step, _ in found] == [int(row["step"]) for row in rows]
        assert [value for _, value in found] == pytest.approx([float(row[name]) for row in rows], rel=1e-6)
    assert events.Scalars("test_accuracy")[0].value == pytest.approx(done.card["test"]["accuracy"])


def test_event_files_hold_plots_and_settings(done):
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    events = tensorboard_events(done.run / "tensorboard")
    plot = done.run / "plots" / "training_curves.png"
    assert events.Images("plots/training_curves")[0].encoded_image_string == plot.read_bytes()
    data = HParamsPluginData.FromString(events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content)
    assert data.session_start_info.hparams["optimizer.lr"].number_value == 0.01
    assert data.session_start_info.hparams["model"].string_value == "linear"


def test_mlflow_store_holds_rows_settings_and_figures(done, rows):
    client, run_id = mlflow_client(done.run)
    kept = client.get_run(run_id)
    assert kept.info.status == "FINISHED"
    assert client.get_experiment(kept.info.experiment_id).name == "cvtrain"
    assert Path(journal(done.run, "mlflow")["place"].removeprefix("sqlite:///")) == done.run.parents[2] / "mlflow.db"
    for name in ("train_loss", "val_accuracy", "lr", "epoch"):
        history = sorted((metric.step, metric.value) for metric in client.get_metric_history(run_id, name))
        assert history == [(int(row["step"]), float(row[name])) for row in rows]
    parameters = kept.data.params
    assert parameters["optimizer.lr"] == "0.01"
    assert (parameters["model"], parameters["trainer.compile"]) == ("linear", "false")
    assert kept.data.metrics["test_accuracy"] == done.card["test"]["accuracy"]
    assert kept.data.tags["team"] == "vision"
    assert kept.data.tags["version.torch"] == torch.__version__.partition("+")[0]


def test_mlflow_artefacts_are_the_files_of_the_run(done):
    client, run_id = mlflow_client(done.run)
    names = {file.path for file in client.list_artifacts(run_id)}
    assert {"report.html", "config.yaml", "metrics.csv", "plots", "checkpoints"} <= names
    (best,) = client.list_artifacts(run_id, "checkpoints")
    (path,) = done.run.glob("checkpoints/best-*")
    assert Path(best.path).name == path.name
    kept = Path(url2pathname(urlsplit(client.get_run(run_id).info.artifact_uri).path)) / best.path
    assert kept.samefile(path)  # a second name, not a second file


def test_wandb_folder_holds_rows_settings_and_figures(done, rows):
    (part,) = wandb_parts(done.run)
    assert (part.project, part.tags, part.exit_code) == ("cvtrain", ["a", "b"], 0)
    found = [(row["_step"], row["val_loss"]) for row in part.rows if "val_loss" in row]
    assert found == [(int(row["step"]), float(row["val_loss"])) for row in rows]
    assert (part.config["optimizer.lr"], part.config["model"]) == (0.01, "linear")
    assert part.summary["test_accuracy"] == done.card["test"]["accuracy"]
    assert any(name.startswith("plots/training_curves") for name in part.summary)


def test_wandb_artefact_names_files_where_they_lie(done):
    (part,) = wandb_parts(done.run)
    (best,) = done.run.glob("checkpoints/best-*")
    assert {str(done.run / "report.html"), str(best)} <= set(part.files)
    assert all(Path(file).is_absolute() for file in part.files)


def test_tracked_run_trains_the_same_weights(done, command):
    assert command(*TINY, "trainer.epochs=2", "optimizer.lr=0.01").code == 0
    (plain,) = Path("outputs").glob("train/*/*")

    def end_of(run: Path):
        (path,) = run.glob("checkpoints/best-*")
        trainer = torch.load(path, weights_only=True)["trainer"]
        return trainer["model"] | trainer["optimizer"]["state"][0]

    ours, theirs = end_of(done.run), end_of(plain)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours if isinstance(ours[key], torch.Tensor))
    assert "trackers" not in json.loads((plain / "run.json").read_text())
    assert not (plain / "trackers").exists()


def test_rows_after_the_checkpoint_that_is_left_are_taken_back_and_written_again(done, tmp_path):
    run = Path(shutil.copytree(done.run, tmp_path / "run", ignore=shutil.ignore_patterns("wandb")))

    def follow() -> list[int]:
        Following("tensorboard", TrackedRun(run), on_progress=lambda: None).follow(["stopped\n"])
        return tensorboard_steps(run / "tensorboard", "val_loss")

    first, last = steps_of(run)
    assert follow() == [first, last]
    lost = list(run.glob(f"checkpoints/*-{last:09d}-*"))
    for path in lost:
        path.rename(tmp_path / path.name)
    assert follow() == [first]
    for path in lost:
        (tmp_path / path.name).rename(path)
    assert follow() == [first, last]


@pytest.mark.long
def test_killed_run_goes_on_as_the_same_tracked_run_without_double_rows(tmp_path, command):
    words = [*TINY, "trainer.epochs=100000", "tracker=tensorboard"]
    process = start(*words, cwd=tmp_path)
    wait_until(lambda: any(tmp_path.glob("outputs/train/*/*/trackers/tensorboard.json")))
    (run,) = tmp_path.glob("outputs/train/*/*")
    wait_until(lambda: journal(run, "tensorboard").get("step", 0) >= 12)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    wait_until(lambda: journal(run, "tensorboard")["status"] == "stopped")  # by the process that is left
    before, run_id = journal(run, "tensorboard")["step"], journal(run, "tensorboard")["run_id"]
    newest = max(run.glob("checkpoints/step-*"))
    newest.unlink()  # as if a disk had lost it: rows that were sent are trained again
    length = int(before) // 4 + 2
    assert command(f"resume={run}", f"trainer.epochs={length}").code == 0
    steps = tensorboard_steps(run / "tensorboard", "val_loss")
    assert steps == steps_of(run) == sorted(set(steps))
    assert steps[-1] == 4 * length > before
    assert journal(run, "tensorboard")["run_id"] == run_id


@pytest.mark.long
def test_run_killed_with_its_trackers_goes_on_in_all_without_double_rows(tmp_path):
    process = start(*TINY, "trainer.epochs=100000", ALL, cwd=tmp_path)
    options = ("tensorboard", "mlflow", "wandb")
    wait_until(lambda: any(tmp_path.glob("outputs/train/*/*/trackers")))
    (run,) = tmp_path.glob("outputs/train/*/*")
    wait_until(lambda: all(journal(run, option).get("step", 0) >= 12 for option in options))
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    for pid in (process.pid, *map(int, children)):  # as when a machine goes down
        os.kill(pid, signal.SIGKILL)
    process.communicate()
    before = {option: journal(run, option) for option in options}
    max(run.glob("checkpoints/step-*")).unlink()
    length = max(each["step"] for each in before.values()) // 4 + 3
    resumed = track(tmp_path, f"resume={run}", f"trainer.epochs={length}")
    assert resumed.code == 0, resumed.err
    assert {option: journal(run, option)["run_id"] for option in options} == {
        option: each["run_id"] for option, each in before.items()
    }
    expected = steps_of(run)
    assert tensorboard_steps(run / "tensorboard", "val_loss") == expected
    assert mlflow_steps(run, "val_loss") == expected
    client, run_id = mlflow_client(run)
    assert client.get_run(run_id).info.status == "FINISHED"
    assert client.get_run(run_id).data.tags["changed.trainer.epochs"] == str(length)
    steps = [row["_step"] for part in wandb_parts(run) for row in part.rows if "val_loss" in row]
    assert len({part.run_id for part in wandb_parts(run)}) == 1
    assert set(steps) >= set(expected)
    assert len(steps) - len(set(steps)) <= 1  # the row that was sent as the process was killed
