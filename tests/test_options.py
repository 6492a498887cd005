"""Every option of every group composes, passes the check, builds, and takes one training step."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cvtrain import build
from cvtrain.check import check, expected_facts
from cvtrain.compose import compose
from cvtrain.config import config_dir
from cvtrain.data.facts import DataFacts
from cvtrain.engine.evaluator import evaluate
from cvtrain.engine.freezing import freeze
from cvtrain.engine.trainer import Evaluation, Step, Trainer
from cvtrain.help import GROUPS, options_of

TINY = ["trainer=smoke", "trainer.steps=1", "trainer.batch_size=4", "data.max_per_class=2", "trainer.device=cpu"]
NO_DOWNLOAD = ("cifar10", "cifar100", "mnist", "fashion_mnist")
FOLDERS = ("cifar10_images", "image_folder", "palm", "food11", "image_csv")
SMALLER = {  # the same code with fewer channels: what is proved here is that the parts fit
    "alexnet": ["model.hidden=[32,32]"],
    "block_cnn": ["model.widths=[4,8]"],
    "mlp": ["model.hidden=[16]"],
    **{name: ["model.width=4"] for name in ("resnet18", "resnet34", "resnet50")},
    "torchvision": ["model.name=squeezenet1_1"],
    "timm": ["model.name=resnet10t"],
}
TWO_CLASSES = ["data=synthetic", "data.num_classes=2", "data.per_class=4", "data.image_size=32"]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Small batches gain nothing from threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def take_one_step(words: list[str]) -> tuple[Step, Evaluation]:
    """Builds everything that a command asks for, trains one step and validates."""
    config = compose([*TINY, *words])
    check(config, trains=True)
    prepared = build.data(config)
    facts: DataFacts = prepared.facts
    loss_fn = build.loss(config, facts)
    network, _ = build.initialised_model(config, facts, num_outputs=loss_fn.num_outputs)
    compute = build.compute(config, network)
    compute.place(network)
    frozen = freeze(network, config["trainer"]["freeze"]) if config["trainer"]["freeze"] else []
    optimizer = build.optimizer(config, network, device=compute.device)
    inputs = build.train_inputs(config, prepared, device=compute.device)
    val_inputs = build.eval_inputs(config, prepared, "val", facts=facts, device=compute.device)
    before = [parameter.detach().clone() for parameter in network.parameters()]
    trainer = Trainer(
        network,
        loss_fn,
        optimizer=optimizer,
        schedule=build.schedule(config, total_steps=2, steps_per_epoch=len(inputs)),
        inputs=inputs,
        evaluate_fn=lambda: evaluate(network, loss_fn, val_inputs, compute=compute, collect=True),
        compute=compute,
        total_steps=1,
        seed=config["seed"],
        evaluate_every=1,
        frozen=frozen,
    )
    step, evaluation = trainer.run()
    trainer.check_finite()
    moved = [not torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True)]
    assert any(moved)
    return step, evaluation


def assert_step(words: list[str]) -> None:
    step, evaluation = take_one_step(words)
    assert step.step == evaluation.step == 1
    assert 0 <= evaluation.train_accuracy <= 1
    assert evaluation.val_loss is not None
    assert evaluation.val_loss == evaluation.val_loss  # a number


@pytest.mark.parametrize("option", options_of("model", config_dir()))
def test_model_takes_a_step(option):
    # Narrow copies of the deepest nets; the VGGs have no width, and are tried at the smallest batch.
    assert_step([f"model={option}", *SMALLER.get(option, ["trainer.batch_size=2"])])


@pytest.mark.parametrize("option", options_of("loss", config_dir()))
def test_loss_takes_a_step(option):
    data = TWO_CLASSES if option == "bce" else []
    assert_step([f"loss={option}", "model=simple_cnn", *data])


@pytest.mark.parametrize("weights", ["auto", "[1,2]"])
@pytest.mark.parametrize("option", [o for o in options_of("loss", config_dir()) if o != "bce"])
def test_loss_takes_a_step_with_class_weights(option, weights):
    assert_step([f"loss={option}", f"loss.class_weights={weights}", "model=linear", *TWO_CLASSES])


@pytest.mark.parametrize("option", options_of("optimizer", config_dir()))
def test_optimizer_takes_a_step(option):
    assert_step([f"optimizer={option}", "model=simple_cnn"])


@pytest.mark.parametrize("option", options_of("scheduler", config_dir()))
def test_scheduler_takes_a_step(option):
    assert_step([f"scheduler={option}", "model=linear"])
    assert_step([f"scheduler={option}", "scheduler.warmup_steps=1", "model=linear"])


@pytest.mark.parametrize("option", options_of("augment", config_dir()))
def test_augmentation_takes_a_step(option):
    assert_step([f"augment={option}", "model=linear"])


@pytest.mark.parametrize("option", [o for o in options_of("trainer", config_dir()) if o != "sample_size"])
def test_trainer_takes_a_step(option):  # the one left out is for sweeps, whose tests train with it
    try:
        assert_step([f"trainer={option}", "trainer.steps=1", "model=simple_cnn"])
    finally:
        torch.use_deterministic_algorithms(False)


def lay_out(option: str, tree: Path) -> None:
    """Brings a tree of `train/<class>` and `test/<class>` into the layout of an option."""
    images = {split: sorted(tree.glob(f"{split}/*/*")) for split in ("train", "test")}
    if option == "image_csv":
        rows = [f"{p.relative_to(tree)},{p.parent.name},{split}\n" for split in images for p in images[split]]
        (tree / "labels.csv").write_text("image,label,split\n" + "".join(rows))
    elif option == "palm":
        (tree / "val").mkdir()
        for path in images["train"]:
            path.rename(tree / "train" / f"{'NP'[path.parent.name == 'b']}{path.name}")
        for path in images["test"]:
            path.rename(tree / "val" / f"V{path.parent.name}{path.name}")
        rows = [f"{path.name},{int(path.name[1] == 'b')}\n" for path in (tree / "val").iterdir()]
        (tree / "labels.csv").write_text("imgName,Label\n" + "".join(rows))
    elif option == "food11":
        for split, new in (("train", "training"), ("test", "evaluation")):
            (tree / new).mkdir()
            for label in range(11):
                for i in range(3):
                    shutil.copy(images[split][0], tree / new / f"{label}_{i}.png")


@pytest.mark.parametrize("option", options_of("data", config_dir()))
def test_data_takes_a_step(option, tmp_path, write_images):
    words = [f"data={option}", "data.val_fraction=0.5"]
    words += [] if option == "spiral" else ["model=simple_cnn"]  # points choose a model of their own
    if option in NO_DOWNLOAD:
        config = compose([*TINY, *words])
        check(config, trains=True)
        facts = expected_facts(config)
        assert facts is not None
        loss_fn = build.loss(config, facts)
        network = build.model(config, facts, num_outputs=loss_fn.num_outputs)
        images = torch.zeros(2, facts.in_channels, facts.image_size, facts.image_size)
        assert network(images).shape == (2, facts.num_classes)
        return
    if option in FOLDERS:
        lay_out(option, write_images(tmp_path / "tree", {"train/a": 4, "train/b": 4, "test/a": 2, "test/b": 2}))
        words += [f"data.root={tmp_path / 'tree'}", f"data.cache_dir={tmp_path / 'cache'}"]
    assert_step(words)


def test_facts_that_are_known_in_advance_are_those_of_the_data():
    for words in (["data=digits", "data.image_size=16", "data.permute_pixels=1"], TWO_CLASSES, ["data=spiral"]):
        config = compose([*words, "model=linear"])
        known, found = expected_facts(config), build.data(config).facts
        shape = (known.num_classes, known.in_channels, known.image_size)
        assert shape == (found.num_classes, found.in_channels, found.image_size)
        assert replace(known.preprocessing) == found.preprocessing


@pytest.mark.parametrize(
    "words",
    [
        "trainer.channels_last=false",
        "trainer.precision=bf16",
        "trainer.init=he",
        "trainer.init=default",
        "trainer.freeze=[features.*]",
        "optimizer.decay_norm_and_bias=true",
        "optimizer=adam optimizer.amsgrad=true",
        "optimizer=rmsprop optimizer.centered=true optimizer.momentum=0.5",
        "optimizer=muon optimizer.normalise_weights=true optimizer.adamw_last_layer=false",
        "model=vgg11 model.hidden=[8] model.dropout=0.3",
        "model=resnet18 model.width=4 model.stem=large model.zero_init_residual=true",
        "model=block_cnn model.widths=[4] model.kernel_size=5 model.dropout=0.2",
        "loss=mae loss.compare=outputs",
        "loss=mse loss.target_scale=2 loss.target_value=3",
        "augment.crop_padding=2 augment.crop_fill=zeros",
        "augment.flip=alternating augment.cutout=4 augment.rotate=5 augment.erase=1 augment.color=0.2",
        "scheduler=one_cycle scheduler.anneal=linear",
        "data=synthetic data.channels=1 data.num_classes=3",
        "data=spiral model=mlp data.num_classes=5 data.noise=0 model.activation=tanh",
        "data.permute_pixels=3 augment.cutmix=1",
        "model=mlp model.hidden=[8,8] model.activation=none",
    ],
)
def test_keys_away_from_their_defaults_take_a_step(words):
    model = [] if "model=" in words else ["model=lenet"]
    assert_step([*model, *words.split()])


def test_losses_and_optimizers_of_torch_can_be_options_of_a_user(tmp_path):
    for path, text in {
        "loss/margin.yaml": "_target_: torch.nn.MultiMarginLoss\nmargin: 0.5\n",
        "loss/nll.yaml": "_target_: torch.nn.CrossEntropyLoss\nreduction: none\n",
        "optimizer/nadam.yaml": "_target_: torch.optim.NAdam\nlr: 0.01\nmomentum_decay: 0.004\n",
    }.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
    for loss in ("margin", "nll"):
        assert_step([f"--config-dir={tmp_path}", f"loss={loss}", "optimizer=nadam", "model=linear"])


def test_groups_without_code_of_their_own_have_tests_elsewhere():
    tested_here = {"model", "loss", "optimizer", "scheduler", "augment", "trainer", "data"}
    assert set(GROUPS) - tested_here == {"task", "experiment", "tracker"}
