"""What a command line composes to: who wins, what is taken over from earlier runs, what users can add."""

from pathlib import Path

import pytest
import yaml

from cvtrain.compose import compose
from cvtrain.config import config_dir
from cvtrain.errors import ConfigError
from cvtrain.help import options_of


def augment_of(*words: str) -> tuple[str, str, int]:
    config = compose(list(words))
    return config["choices"]["augment"], config["augment"]["flip"], config["augment"]["crop_padding"]


# --------------------------------------------------------------------------------------------------- augmentation

NEED_ROOT = ("cifar10_images", "image_folder", "image_csv", "food11", "palm")
PLAIN, FLIP_CROP, STRONG = ("none", "none", 0), ("flip_crop", "random", 4), ("strong", "random", 0)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("digits", PLAIN),
        ("synthetic", PLAIN),
        ("spiral", PLAIN),
        ("mnist", PLAIN),
        ("fashion_mnist", PLAIN),
        ("cifar10", FLIP_CROP),
        ("cifar100", FLIP_CROP),
        ("cifar10_images", FLIP_CROP),
        ("image_folder", FLIP_CROP),
        ("image_csv", FLIP_CROP),
        ("food11", FLIP_CROP),
        ("palm", ("flip", "random", 0)),
    ],
)
def test_data_choose_their_own_augmentation(data, expected):
    root = ["data.root=x"] if data in NEED_ROOT else []
    assert augment_of(f"data={data}", *root) == expected


def test_typed_augmentation_wins_over_that_of_the_data():
    assert augment_of("data=cifar10", "augment=none") == PLAIN
    assert augment_of("augment=none", "data=cifar10") == PLAIN
    assert augment_of("data=digits", "augment=strong") == STRONG
    assert augment_of("data=cifar10", "augment.flip=none") == ("flip_crop", "none", 4)


@pytest.fixture
def own(tmp_path):
    """Writes files of a user's own config folder."""

    def write(path: str, text: str) -> str:
        file = tmp_path / "own" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return f"--config-dir={tmp_path / 'own'}"

    return write


def test_augmentation_of_an_experiment_wins_over_the_data_and_a_typed_one_over_both(own):
    flag = own("experiment/mine.yaml", "# @package _global_\ndefaults: [override /augment: strong]\n")
    assert augment_of(flag, "data=cifar10", "experiment=mine") == STRONG
    assert augment_of(flag, "data=cifar10", "experiment=mine", "augment=none") == PLAIN
    assert augment_of(flag, "experiment=mine", "augment=flip_crop") == FLIP_CROP


def test_experiment_that_chooses_data_gets_their_augmentation(own):
    flag = own("experiment/mine.yaml", "# @package _global_\ndefaults: [override /data: cifar10]\n")
    assert augment_of(flag, "experiment=mine") == FLIP_CROP
    assert augment_of(flag, "experiment=mine", "augment=none") == PLAIN
    assert augment_of(flag, "experiment=mine", "data=digits") == PLAIN


def test_data_option_of_a_user_takes_over_the_augmentation_of_the_packaged_one(own):
    flag = own("data/mine.yaml", "defaults: [cifar10, _self_]\nval_fraction: 0.2\n")
    assert augment_of(flag, "data=mine") == FLIP_CROP
    assert augment_of(flag, "data=mine", "augment=none") == PLAIN


# --------------------------------------------------------------------------------------------------------- options


def test_typed_values_win_over_an_experiment_and_that_over_defaults():
    config = compose(["experiment=smoke"])
    assert (config["trainer"]["steps"], config["trainer"]["epochs"]) == (4, None)
    assert config["choices"]["experiment"] == "smoke"
    config = compose(["experiment=smoke", "trainer.steps=7", "trainer.batch_size=3", "model=vgg11"])
    assert (config["trainer"]["steps"], config["trainer"]["batch_size"]) == (7, 3)
    assert config["choices"]["model"] == "vgg11"


def test_one_length_replaces_the_other():
    def length(*words):
        trainer = compose(list(words))["trainer"]
        return trainer["epochs"], trainer["steps"]

    assert length() == (30, None)
    assert length("trainer.steps=9") == (None, 9)
    assert length("trainer=smoke", "trainer.epochs=2") == (2, None)
    assert length("experiment=smoke", "trainer.epochs=2") == (2, None)


def test_length_of_an_experiment_replaces_the_default_and_a_typed_one_replaces_it(own):
    flag = own("experiment/mine.yaml", "# @package _global_\ntrainer:\n  steps: 9\n")
    assert compose([flag, "experiment=mine"])["trainer"]["epochs"] is None
    trainer = compose([flag, "experiment=mine", "trainer.epochs=2"])["trainer"]
    assert (trainer["epochs"], trainer["steps"]) == (2, None)


def test_plus_signs_and_order_change_nothing():
    plain = compose(["model=mlp", "optimizer.lr=0.3", "experiment=smoke"])
    assert compose(["+experiment=smoke", "++optimizer.lr=0.3", "+model=mlp"]) == plain


def test_values_of_open_dictionaries_are_free():
    config = compose(["model=timm", "model.kwargs={drop_rate:0.1}"])
    assert config["model"]["kwargs"] == {"drop_rate": 0.1}
    assert compose(["model=timm", "model.kwargs.drop_rate=0.1"])["model"] == config["model"]


def test_environment_and_other_keys_can_be_referred_to(monkeypatch):
    monkeypatch.setenv("CVTRAIN_TEST_LR", "0.25")
    config = compose(["optimizer.lr='${oc.decode:${oc.env:CVTRAIN_TEST_LR}}'", "data=synthetic", "data.seed=${seed}"])
    assert (config["optimizer"]["lr"], config["data"]["seed"]) == (0.25, 0)


def test_two_compositions_do_not_meet(own):
    flag = own("model/mine.yaml", "defaults: [mlp, _self_]\nhidden: [3]\n")
    assert compose([flag, "model=mine"])["model"]["hidden"] == [3]
    with pytest.raises(ConfigError, match="unknown option model=mine"):
        compose(["model=mine"])


def test_root_config_of_a_user(own):
    flag = own("mine.yaml", "defaults:\n- config\n- override /model: vgg11\n- _self_\nseed: 7\ntrainer: {epochs: 2}\n")
    config = compose([flag, "--config-name=mine", "optimizer.lr=0.3"])
    assert config["choices"]["model"] == "vgg11"
    assert (config["seed"], config["trainer"]["epochs"], config["optimizer"]["lr"]) == (7, 2, 0.3)
    assert compose([flag, "--config-name=mine.yaml", "model=mlp"])["choices"]["model"] == "mlp"


def test_packaged_options_cannot_be_shadowed(own):
    flag = own("model/mlp.yaml", "_target_: os.system\n")
    assert compose([flag, "model=mlp"])["model"]["_target_"] == "cvtrain.models.mlp.mlp"


# ---------------------------------------------------------------------------------------------------- the files


def yaml_files() -> list[Path]:
    return sorted(config_dir().rglob("*.yaml"))


@pytest.mark.parametrize("path", yaml_files(), ids=lambda path: str(path.relative_to(config_dir())))
def test_files_open_with_a_comment_and_say_no_facts_of_data(path):
    text = path.read_text(encoding="utf-8")
    first = text.splitlines()[0]
    assert first.startswith("# ")
    if path.parent.name in ("task", "experiment"):
        assert first == "# @package _global_"
        assert text.splitlines()[1].startswith("# ")
    settings = yaml.safe_load(text)
    assert "${hydra:" not in text
    if path.parent.name == "model":
        assert not {"num_classes", "in_channels", "image_size"} & set(settings)
    assert len(text.splitlines()) <= 40


@pytest.mark.parametrize("group", ["task", "data", "augment", "model", "loss", "optimizer", "scheduler", "trainer"])
def test_every_option_composes_with_every_key_of_its_file(group):
    for option in options_of(group, config_dir()):
        more = ["data.root=x"] if option in NEED_ROOT else []
        more += ["task=sample_size_sweep"] if (group, option) == ("trainer", "sample_size") else []
        config = compose([f"{group}={option}", *more])
        settings = yaml.safe_load((config_dir() / group / f"{option}.yaml").read_text(encoding="utf-8"))
        assert set(settings) - {"defaults"} <= set(config if group == "task" else config[group])
        assert config["choices"][group] == option


# ------------------------------------------------------------------------------------------------- earlier runs


@pytest.fixture
def run(tmp_path):
    """The folder of a run as its config is saved."""
    from cvtrain.config import save_text

    folder = tmp_path / "run"
    folder.mkdir()
    config = compose(["experiment=smoke", "model=mlp", "model.hidden=[8]", "seed=5", "data=cifar10", "plugins=[]"])
    (folder / "config.yaml").write_text(save_text(config))
    return folder


def test_resumed_config_is_that_of_the_run(run):
    config = compose([f"resume={run}"])
    assert config["resume"] == str(run)
    assert (config["model"]["hidden"], config["seed"], config["choices"]["model"]) == ([8], 5, "mlp")


def test_resume_may_change_length_and_place_but_nothing_else(run):
    config = compose([f"resume={run}", "trainer.epochs=3", "data.root=elsewhere", "model=mlp", "seed=5"])
    assert (config["trainer"]["epochs"], config["trainer"]["steps"]) == (3, None)
    assert config["data"]["root"] == "elsewhere"
    with pytest.raises(ConfigError) as caught:
        compose([f"resume={run}", "model=vgg11", "optimizer.lr=3", "trainer.epoch=2", "trainer.steps=x"])
    assert [problem.split(":")[0] for problem in caught.value.problems] == [
        "model=vgg11",
        "optimizer.lr=3",
        "unknown key trainer.epoch",
        "trainer.steps=x",
    ]


def test_code_named_in_a_run_folder_is_not_trusted(run):
    path = run / "config.yaml"
    path.write_text(path.read_text().replace("plugins: []", "plugins: [somebodys_package]"))
    assert compose([f"resume={run}"])["plugins"] == []


@pytest.mark.parametrize("task", ["evaluate", "predict"])
def test_trained_model_rules_what_is_not_typed(run, task):
    config = compose([f"task={task}", f"checkpoint={run}", "trainer.eval_batch_size=7"])
    assert (config["model"]["hidden"], config["seed"], config["task"]) == ([8], 5, task)
    assert (config["data"]["_target_"], config["choices"]["data"]) == ("cvtrain.data.cifar.load_cifar10", "cifar10")
    assert config["trainer"]["eval_batch_size"] == 7
    with pytest.raises(ConfigError, match="loss=mse: the checkpoint was trained with loss=cross_entropy"):
        compose([f"task={task}", f"checkpoint={run}", "loss=mse"])
