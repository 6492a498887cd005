"""A run that starts from the weights of another: what it takes, what it refuses, and that it then stands alone."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import cvtrain
from cvtrain import build
from cvtrain.check import expected_facts
from cvtrain.cli import dispatch
from cvtrain.compose import compose
from cvtrain.config import config_dir
from cvtrain.ending import exit_code_of
from cvtrain.engine.checkpoint import list_checkpoints, read_checkpoint
from cvtrain.help import options_of
from cvtrain.init_from import read_start, take_weights

NET = ["model=resnet18", "model.width=8"]
DATA = ["data=synthetic", "data.num_classes=4", "data.per_class=20", "data.image_size=16", "data.channels=1"]
BRIEF = ["trainer.epochs=null", "trainer.steps=4", "trainer.batch_size=16", "trainer.device=cpu"]
BACKBONE = "trainer.freeze=[stem.*,stage?.*]"


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Small batches gain nothing from threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def train(root, *words):
    assert exit_code_of(lambda: dispatch([*DATA, *NET, *BRIEF, *words, f"output_dir={root}"])) == 0
    return max(root.glob("train/*/*"), key=lambda path: path.name)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A run on digits, whose brightness and number of classes are not those of `DATA`, with averaged weights."""
    words = ["data=digits", "data.image_size=16", "data.max_per_class=20", "trainer.ema=0.5", "trainer.steps=12"]
    root = tmp_path_factory.mktemp("source")
    words += [*NET, "trainer.epochs=null", "trainer.batch_size=32", "trainer.device=cpu", f"output_dir={root}"]
    assert exit_code_of(lambda: dispatch(words)) == 0
    return next(root.glob("train/*/*"))


def newest_state(run, kind="step"):
    return read_checkpoint(list_checkpoints(run / "checkpoints", kind)[-1].path)


def weights_in_use(state, model):
    """What `cvtrain.load` would use: averaged parameters, and buffers as they are."""
    found = dict(state["trainer"]["model"])
    if state["trainer"]["average"] is not None:
        names = [name for name, _ in model.named_parameters()]
        found |= dict(zip(names, state["trainer"]["average"]["averages"], strict=True))
    return found


def assert_equal_bits(ours, theirs, names):
    for name in names:
        assert torch.equal(ours[name], theirs[name]), name


def backbone(state):
    return [name for name in state if not name.startswith("head.")]


# ------------------------------------------------------------------------------------------------- what is taken


def test_averaged_weights_of_the_best_checkpoint_are_taken(source):
    words = ["data=digits", "data.image_size=16", "data.max_per_class=20", *NET, f"model.init_from={source}"]
    config = compose(words)
    start, prepared = read_start(config), build.data(config)
    model, _ = build.initialised_model(config, prepared.facts, num_outputs=10)
    taken = take_weights(model, start, config=config, prepared=prepared)
    expected = weights_in_use(newest_state(source, "best"), model)
    raw = newest_state(source, "best")["trainer"]["model"]
    assert_equal_bits(model.state_dict(), expected, expected)
    assert not torch.equal(raw["head.weight"], expected["head.weight"]), "the average is not the last weights"
    assert re.fullmatch(r"starts from .* \(step \d+\): (\d+) of \1 tensors; its normalisation", taken.sentence)
    assert taken.warnings == ()


def test_other_number_of_classes_leaves_the_head_new_and_the_rest_is_taken(source, tmp_path, capsys):
    run = train(tmp_path, f"model.init_from={source}", BACKBONE)
    state, theirs = newest_state(run), newest_state(source, "best")
    config = compose([*DATA, *NET])
    model = build.model(config, expected_facts(config), num_outputs=4)
    expected = weights_in_use(theirs, build.model(config, expected_facts(config), num_outputs=10))
    ours = state["trainer"]["model"]
    assert_equal_bits(ours, expected, backbone(ours))
    assert ours["head.weight"].shape == model.head.weight.shape == (4, 64)
    num = len(ours)
    step = theirs["trainer"]["step"]
    line = f"starts from {source} (step {step}): {num - 2} of {num} tensors, new head for 4 classes; its normalisation"
    assert line in capsys.readouterr().out
    origin = json.loads((run / "run.json").read_text())["init_from"]
    file = list_checkpoints(source / "checkpoints", "best")[-1]
    assert (origin["path"], origin["step"]) == (str(file.path), step)
    assert origin["sha256"].startswith(file.digest)
    assert state["init_from"] == origin


def test_new_head_starts_as_it_would_without_a_source(source):
    config = compose([*DATA, *NET, f"model.init_from={source}"])
    prepared = build.data(config)
    models = [build.initialised_model(config, prepared.facts, num_outputs=4)[0] for _ in range(2)]
    take_weights(models[0], read_start(config), config=config, prepared=prepared)
    assert torch.equal(models[0].head.weight, models[1].head.weight)
    assert torch.equal(models[0].head.bias, models[1].head.bias)
    assert not torch.equal(models[0].stem[0].weight, models[1].stem[0].weight)


def test_head_of_another_kind_is_left_new(source):
    words = ["data=digits", "data.image_size=16", *NET, "loss=am_softmax", f"model.init_from={source}"]
    config = compose(words)
    prepared = build.data(config)
    model, _ = build.initialised_model(config, prepared.facts, num_outputs=10)
    head = model.head.weight.detach().clone()
    taken = take_weights(model, read_start(config), config=config, prepared=prepared)
    assert "new head for 10 classes" in taken.sentence
    assert torch.equal(model.head.weight, head)


def test_normalisation_of_the_source_is_taken_over(source, tmp_path):
    run = train(tmp_path, f"model.init_from={source}")
    ours, theirs = newest_state(run)["facts"], newest_state(source)["facts"]
    own = build.data(compose([*DATA, *NET])).facts.to_plain()
    assert ours["statistics"] == theirs["statistics"] != own["statistics"]
    assert ours["class_names"] == own["class_names"]
    assert ours["fingerprint"] == own["fingerprint"]
    # The validation loss that was saved is the one of these weights under that normalisation.
    rows = (run / "predictions.csv").read_text().splitlines()[1:]
    pixels = build.data(compose([*DATA, *NET])).source.test.images.pixels.numpy()
    predictions = cvtrain.load(run, device="cpu").predict(list(pixels))
    assert [p.class_name for p in predictions] == [row.split(",")[2] for row in rows]


def test_averaging_starts_from_the_taken_weights(source, tmp_path):
    run = train(tmp_path, f"model.init_from={source}", BACKBONE, "trainer.ema=0.9", "optimizer.weight_decay=0.1")
    state = newest_state(run)
    config = compose([*DATA, *NET])
    model = build.model(config, expected_facts(config), num_outputs=4)
    ours = weights_in_use(state, model)
    expected = weights_in_use(newest_state(source, "best"), build.model(config, expected_facts(config), num_outputs=10))
    assert_equal_bits(ours, expected, backbone(ours))


def test_a_checkpoint_file_is_a_source_too(source, tmp_path):
    shutil.copy(list_checkpoints(source / "checkpoints", "best")[-1].path, tmp_path / "lone.ckpt")
    run = train(tmp_path, f"model.init_from={tmp_path / 'lone.ckpt'}", BACKBONE)
    ours = newest_state(run)["trainer"]["model"]
    config = compose([*DATA, *NET])
    theirs = weights_in_use(newest_state(source, "best"), build.model(config, expected_facts(config), num_outputs=10))
    assert_equal_bits(ours, theirs, backbone(ours))


def test_images_of_another_size_are_no_obstacle_to_a_model_that_takes_them(source, tmp_path):
    train(tmp_path, "data.image_size=24", f"model.init_from={source}")


# ------------------------------------------------------------------------------------------------- frozen layers


@pytest.mark.parametrize("optimizer", ["nesterov", "adamw", "muon optimizer.adamw_last_layer=false"])
def test_frozen_layers_keep_every_bit_through_training_checkpoint_and_resume(source, tmp_path, optimizer):
    words = [*f"optimizer={optimizer}".split(), "optimizer.lr=0.1", "optimizer.weight_decay=0.1", "trainer.ema=0.9"]
    words += ["trainer.grad_clip=1.0", "trainer.accumulate=2", "scheduler=constant"]
    run = train(tmp_path, f"model.init_from={source}", BACKBONE, "augment=strong", *words)
    before = newest_state(run)
    assert exit_code_of(lambda: dispatch([f"resume={run}", "trainer.steps=8"])) == 0
    config = compose([*DATA, *NET])
    models = [build.model(config, expected_facts(config), num_outputs=num) for num in (4, 10)]
    theirs = weights_in_use(newest_state(source, "best"), models[1])
    for state in (before, newest_state(run)):
        ours = state["trainer"]["model"]
        assert_equal_bits(ours, theirs, backbone(ours))
        assert_equal_bits(weights_in_use(state, models[0]), theirs, backbone(ours))
    names = backbone(theirs)
    assert sum(name.endswith("running_var") for name in names) == 20
    assert sum(name.endswith("num_batches_tracked") for name in names) == 20
    assert before["trainer"]["step"] == 4
    assert newest_state(run)["trainer"]["step"] == 8
    assert not torch.equal(before["trainer"]["model"]["head.weight"], ours["head.weight"]), "the head is trained"


def test_layers_that_are_not_frozen_move(source, tmp_path):
    run = train(tmp_path, f"model.init_from={source}", "trainer.freeze=[stem.*]")
    ours, theirs = newest_state(run)["trainer"]["model"], newest_state(source, "best")["trainer"]["model"]
    assert torch.equal(ours["stem.1.num_batches_tracked"], theirs["stem.1.num_batches_tracked"])
    assert ours["stage1.0.bn1.num_batches_tracked"] == theirs["stage1.0.bn1.num_batches_tracked"] + 4
    assert not torch.equal(ours["stage1.0.bn1.running_mean"], theirs["stage1.0.bn1.running_mean"])


@pytest.mark.long
def test_sweep_over_what_is_frozen_starts_from_one_source(source, command, tmp_path):
    words = [*DATA, *NET, *BRIEF, f"model.init_from={source}"]
    result = command("--multirun", *words, "trainer.freeze=[],[stem.*],[stem.*,stage?.*]")
    assert result.code == 0, result.errors
    cards = [json.loads(path.read_text()) for path in (tmp_path / "outputs").rglob("run.json")]
    assert len([card for card in cards if "init_from" in card]) == 3
    assert len({card["init_from"]["sha256"] for card in cards if "init_from" in card}) == 1


# ------------------------------------------------------------------------------------------------- standing alone


def test_run_needs_its_source_no_more(source, tmp_path):
    words = ["scheduler=constant", "trainer.evaluate_every=2"]
    there = shutil.copytree(source, tmp_path / "there")
    long, short = (tmp_path / "long", tmp_path / "short")
    long = train(long, f"model.init_from={there}", *words, "trainer.steps=8")
    short = train(short, f"model.init_from={there}", *words)
    shutil.rmtree(there)
    origin = json.loads((short / "run.json").read_text())["init_from"]
    assert exit_code_of(lambda: dispatch([f"resume={short}", "trainer.steps=8"])) == 0
    assert json.loads((short / "run.json").read_text())["init_from"] == origin
    ours, theirs = (newest_state(run) for run in (short, long))
    assert_equal_bits(ours["trainer"]["model"], theirs["trainer"]["model"], theirs["trainer"]["model"])
    assert ours["facts"] == theirs["facts"]
    assert ours["init_from"] == theirs["init_from"]
    model = cvtrain.load(short, device="cpu")
    assert model.predict(np.zeros((16, 16), np.uint8))[0].class_name in model.class_names
    words = [f"checkpoint={short}", f"output_dir={tmp_path / 'out'}"]
    assert exit_code_of(lambda: dispatch(["task=evaluate", *words])) == 0
    [card] = (tmp_path / "out").glob("evaluate/*/*/run.json")
    test = json.loads((short / "run.json").read_text())["test"]
    assert json.loads(card.read_text())["test"]["accuracy"] == test["accuracy"]


def test_run_without_a_checkpoint_of_its_own_reads_its_source_again(source, tmp_path, capsys):
    there = shutil.copytree(source, tmp_path / "there")
    run = train(tmp_path / "runs", f"model.init_from={there}")
    expected = newest_state(run)["trainer"]["model"]
    for path in (run / "checkpoints").iterdir():
        path.unlink()
    (run / "run.json").write_text(json.dumps({"status": "stopped"}))
    again = shutil.copytree(run, tmp_path / "again")
    capsys.readouterr()
    assert exit_code_of(lambda: dispatch([f"resume={run}"])) == 0
    assert "starts from" in capsys.readouterr().out
    assert_equal_bits(newest_state(run)["trainer"]["model"], expected, expected)
    shutil.rmtree(there)
    assert exit_code_of(lambda: dispatch([f"resume={again}"])) == 4


# ------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("words", "code", "lines"),
    [
        (["model.width=4"], 2, ["the checkpoint does not fit resnet18: model.width is 8 there, 4 here", "other shape"]),
        (["model=lenet"], 2, ["the checkpoint holds resnet18, the model here is lenet", "missing", "type model=resne"]),
        (["data.channels=3"], 2, ["takes images of 1 channel, these have 3 channels", "data.channels=1"]),
        (
            ["model.stem=large"],
            2,
            ["model.stem is auto there, large here", "stem.0.weight (8x1x3x3 there, 8x1x7x7 here"],
        ),
    ],
)
def test_model_that_does_not_fit_is_refused_before_data_are_read(source, command, tmp_path, words, code, lines):
    net = [] if any(word.startswith("model=") for word in words) else NET
    result = command(*DATA, *BRIEF, *net, *words, f"model.init_from={source}")
    assert result.code == code
    assert result.errors[0].startswith(f"error: model.init_from={source}: ")
    for line in lines:
        assert line in "\n".join(result.errors)
    assert len(result.errors) <= 6
    assert not list((tmp_path / "outputs").glob("train/*/*"))


def test_all_tensors_that_do_not_fit_are_listed(source, command):
    result = command(*DATA, *BRIEF, "model=resnet34", "model.width=8", f"model.init_from={source}")
    assert result.code == 2
    assert "the checkpoint holds resnet18, the model here is resnet34" in result.errors[0]
    assert re.search(r"\d+ tensors missing there: stage1\.2\.conv1\.weight, .*, and \d+ more", result.errors[1])


def test_images_whose_shape_is_known_late_are_compared_too(source, command, tmp_path, write_images):
    root = write_images(tmp_path / "data", {"train/a": 4, "train/b": 4, "test/a": 2, "test/b": 2}, size=16)
    words = ["data=image_folder", f"data.root={root}", f"data.cache_dir={tmp_path / 'cache'}", "data.val_fraction=0.5"]
    result = command(*words, *NET, *BRIEF, f"model.init_from={source}")
    assert result.code == 2
    assert "takes images of 1 channel, these have 3" in result.errors[0]
    assert command(*words, "data.channels=1", *NET, *BRIEF, f"model.init_from={source}").code == 0


def test_sources_that_cannot_be_read_are_named(source, command, tmp_path):
    damaged = shutil.copytree(source, tmp_path / "damaged")
    best = list_checkpoints(damaged / "checkpoints", "best")[-1].path
    data = bytearray(best.read_bytes())
    data[len(data) // 2] ^= 1
    best.unlink()  # a name of its own: the newest step may be the same file
    best.write_bytes(data)
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.ckpt").write_text("no checkpoint")
    torch.save({"format": 1, "trainer": {}}, tmp_path / "part.ckpt")
    for name, expected in {
        "nowhere": "model.init_from=nowhere: there is no such file or folder",
        "empty": "model.init_from=empty: the folder holds no checkpoint",
        "text.ckpt": "text.ckpt is not a checkpoint of cvtrain",
        "part.ckpt": "part.ckpt is not a checkpoint of cvtrain: it lacks 'config'",
        "damaged": "checksum",
    }.items():
        result = command(*DATA, *NET, *BRIEF, f"model.init_from={name}")
        assert result.code == 4, name
        assert expected in "\n".join(result.errors)
    assert "type model.init_from=damaged/checkpoints/step-" in "\n".join(result.errors)


def test_weights_that_are_no_numbers_are_refused(source, command, tmp_path):
    state = newest_state(source, "best")
    state["trainer"]["model"]["stem.0.weight"][0] = float("nan")
    torch.save(state, tmp_path / "nan.ckpt")
    result = command(*DATA, *NET, *BRIEF, "model.init_from=nan.ckpt")
    assert result.code == 4
    assert "stem.0.weight is not a finite number" in result.errors[0]


def test_averages_of_another_model_are_refused(source, command, tmp_path):
    state = newest_state(source, "best")
    state["trainer"]["average"]["averages"].pop(3)
    torch.save(state, tmp_path / "odd.ckpt")
    result = command(*DATA, *NET, *BRIEF, "model.init_from=odd.ckpt")
    assert result.code == 4
    assert "averaged weights are not those of its model" in result.errors[0]


@pytest.mark.parametrize(
    ("model", "words"),
    [("torchvision", ["model.name=resnet18", "model.weights=DEFAULT"]), ("timm", ["model.pretrained=true"])],
)
def test_two_sources_of_weights_are_one_too_many(command, model, words):
    result = command(f"model={model}", *words, "model.init_from=run")
    assert result.code == 2
    assert "are both set: choose one" in result.errors[0]


# ------------------------------------------------------------------------------------------------- other


def test_validation_images_that_trained_the_source_are_told_of(source, tmp_path, capsys):
    words = [*NET, *BRIEF, "data=digits", "data.image_size=16", f"model.init_from={source}", f"output_dir={tmp_path}"]
    assert exit_code_of(lambda: dispatch([*words, "data.max_per_class=20"])) == 0
    assert "split otherwise" not in capsys.readouterr().out
    assert exit_code_of(lambda: dispatch([*words, "data.max_per_class=20", "seed=1"])) == 0
    assert "was trained on the same data, split otherwise" in capsys.readouterr().out
    [*_, card] = sorted(tmp_path.rglob("run.json"))
    assert any("split otherwise" in warning for warning in json.loads(card.read_text())["warnings"])


def test_another_order_of_pixels_is_told_of(source, tmp_path, capsys):
    permuted = train(tmp_path, f"model.init_from={source}", "data.permute_pixels=1")
    said = "was trained with data.permute_pixels={}, here it is {}: its weights know the pixels in another order"
    assert said.format("null", 1) in capsys.readouterr().out
    train(tmp_path, f"model.init_from={permuted}", "data.permute_pixels=1")
    assert "another order" not in capsys.readouterr().out
    back = train(tmp_path, f"model.init_from={permuted}")
    assert said.format(1, "null") in capsys.readouterr().out
    assert any("another order" in warning for warning in json.loads((back / "run.json").read_text())["warnings"])


def test_another_activation_is_told_of(command):
    words = ("data=spiral", "data.per_class=20", "model.hidden=[8]", *BRIEF)
    assert command(*words, "output_dir=relu").code == 0
    [run] = Path("relu").glob("train/*/*")
    assert "model.activation" not in command(*words, f"model.init_from={run}").out
    other = command(*words, f"model.init_from={run}", "model.activation=none")
    assert "was trained with model.activation=relu, here it is none" in other.out


def test_frozen_layers_at_random_weights_are_told_of(source, tmp_path, capsys):
    train(tmp_path, BACKBONE)
    assert "trainer.freeze keeps layers at random weights" in capsys.readouterr().out
    train(tmp_path, BACKBONE, f"model.init_from={source}")
    assert "random weights" not in capsys.readouterr().out


@pytest.mark.parametrize("option", options_of("model", config_dir()))
def test_every_model_can_start_from_a_run(option):
    settings = yaml.safe_load((config_dir() / "model" / f"{option}.yaml").read_text())
    assert settings["init_from"] is None
    assert list(settings)[-1] == "init_from"


def test_model_of_a_user_need_not_know_of_it(command, tmp_path):
    (tmp_path / "own" / "model").mkdir(parents=True)
    (tmp_path / "own" / "model" / "tiny.yaml").write_text("_target_: cvtrain.models.mlp.linear\n")
    words = [*DATA, *BRIEF, "--config-dir=own", "model=tiny"]
    assert command(*words).code == 0
    result = command(*words, "model.init_from=run")
    assert result.code == 2
    assert "model.init_from" in result.errors[0]
