"""What a `_target_` may name: nothing outside the allowed packages is imported or called, whoever asks."""

import sys
from pathlib import Path

import pytest

import cvtrain
from cvtrain import targets
from cvtrain.errors import CheckpointError, ConfigError
from cvtrain.targets import KINDS

ATTACKS = [
    "os.system",
    "posix.system",
    "subprocess.run",
    "subprocess.Popen",
    "builtins.eval",
    "builtins.exec",
    "builtins.open",
    "builtins.__import__",
    "importlib.import_module",
    "functools.partial",
    "functools.reduce",
    "operator.attrgetter",
    "pickle.load",
    "pickle.loads",
    "shutil.copyfile",
    "pathlib.Path.write_text",
    "os.mkdir",
    "numpy.load",
    "joblib.load",
    "sympy.sympify",
    "yaml.unsafe_load",
    "hydra.utils.instantiate",
    "hydra.utils.get_method",
    "torch.load",
    "torch.save",
    "torch.hub.load",
    "torch.jit.load",
    "torch.serialization.load",
    "torch.utils.model_zoo.load_url",
    "logging.os.system",
    # through the allowed packages
    "torch.nn.os.system",
    "torch.optim.os.system",
    "torch.optim.optimizer.functools.partial",
    "torch.optim.optimizer.torch.load",
    "torch.nn.functional.torch.load",
    "torch.nn.functional.importlib.import_module",
    "torch.nn.modules.module.torch.load",
    "cvtrain.outputs.os.system",
    "cvtrain.outputs.os",
    "cvtrain.outputs.RunDir",
    "cvtrain.cli.main",
    "cvtrain.cli.importlib.import_module",
    "cvtrain.engine.checkpoint.read_checkpoint",
    "cvtrain.data.download.fetch",
    "cvtrain.data.download.os.remove",
    "cvtrain.data.digits.np.load",
    "cvtrain.data.augment.torch.load",
    "cvtrain.models.library._call",
    "cvtrain.models.library.warnings",
    "cvtrain.models.cnn.nn",
    "cvtrain.models.init.initialise",
    "cvtrain.muon.torch.load",
    "cvtrain.muon.groupby",
    "cvtrain.losses.math",
    "cvtrain.schedulers.dataclass",
    # no names at all
    "",
    "lenet",
    ".lenet",
    "cvtrain.models..cnn.lenet",
    "cvtrain.models.cnn.",
    "cvtrain.models.cnn:lenet",
    "cvtrain.models.cnn.lenet()",
    "cvtrain.models.cnn.lenet.__globals__",
    "cvtrain.models.__builtins__.eval",
    "cvtrain.models.cnn.__loader__",
    "cvtrain.models.cnn.__builtins__",
    "__main__.eval",
    3,
    None,
    ["os.system"],
    {"_target_": "os.system"},
]


@pytest.mark.parametrize("group", KINDS)
@pytest.mark.parametrize("target", ATTACKS, ids=str)
def test_names_outside_the_allow_list_are_refused_for_every_group(group, target):
    with pytest.raises(ConfigError, match=rf"^{group}\._target_="):
        targets.resolve(group, target)


@pytest.mark.parametrize("group", KINDS)
def test_refused_modules_are_not_even_imported(group, tmp_path, monkeypatch):
    (tmp_path / "evil_module.py").write_text(f"open({str(tmp_path / 'was_here')!r}, 'w')\ndef run(**_): pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    for target in ("evil_module.run", "evil_module.sub.run", f"{KINDS[group].packages[0]}.evil_module.run"):
        with pytest.raises(ConfigError):
            targets.resolve(group, target)
    assert not (tmp_path / "was_here").exists()
    assert "evil_module" not in sys.modules


@pytest.mark.parametrize(
    ("group", "target"),
    [
        ("data", "cvtrain.models.cnn.lenet"),
        ("data", "cvtrain.data.images.MemoryImages"),
        ("model", "cvtrain.data.digits.load_digits"),
        ("model", "torch.optim.SGD"),
        ("loss", "torch.optim.SGD"),
        ("loss", "torch.nn.functional.cross_entropy"),
        ("optimizer", "torch.nn.Linear"),
        ("optimizer", "torch.optim.lr_scheduler.StepLR"),
        ("optimizer", "torch.optim.sgd.sgd"),
        ("scheduler", "cvtrain.schedulers._check"),
        ("augment", "cvtrain.data.augment.flip"),
    ],
)
def test_things_of_another_kind_are_refused(group, target):
    with pytest.raises(ConfigError):
        targets.resolve(group, target)


@pytest.mark.parametrize(
    ("group", "target"),
    [
        ("data", "cvtrain.data.digits.load_digits"),
        ("augment", "cvtrain.data.augment.Augment"),
        ("model", "cvtrain.models.vgg.vgg16_bn"),
        ("model", "cvtrain.models.library.timm"),
        ("loss", "cvtrain.losses.Focal"),
        ("loss", "torch.nn.MultiMarginLoss"),
        ("optimizer", "torch.optim.NAdam"),
        ("optimizer", "cvtrain.muon.Muon"),
        ("scheduler", "cvtrain.schedulers.Cosine"),
    ],
)
def test_allowed_names_are_found(group, target):
    assert targets.resolve(group, target).__name__ == target.rpartition(".")[2]


def test_misspelt_name_gets_the_nearest():
    with pytest.raises(ConfigError, match=r"did you mean cvtrain\.models\.cnn\.lenet\?"):
        targets.resolve("model", "cvtrain.models.cnn.lenett")
    with pytest.raises(ConfigError, match="there is no such module"):
        targets.resolve("model", "cvtrain.models.cnnn.lenet")


def test_arguments_are_bound_to_the_signature():
    settings = {"_target_": "cvtrain.models.mlp.mlp", "hiden": [3], "num_classes": 10}
    told = targets.problems_of("model", settings)
    assert told[0] == "model.hiden: cvtrain.models.mlp.mlp has no such option: did you mean model.hidden?"
    assert told[1].startswith("model.num_classes: cvtrain.models.mlp.mlp has no such option")
    assert targets.problems_of("loss", {"_target_": "torch.nn.GaussianNLLLoss"}) == []


# ------------------------------------------------------------------------------------------------------- plugins

PACKAGE = """
import torch
from torch import nn
from cvtrain.data.synthetic import load_synthetic


def net(*, num_classes, in_channels, image_size, width=8):
    return nn.Sequential(nn.Flatten(), nn.Linear(in_channels * image_size**2, width), nn.Linear(width, num_classes))


class Loss(nn.Module):
    def __init__(self, *, power=2):
        super().__init__()
        self.power = power

    def forward(self, logits, labels):
        return (1 - logits.softmax(1)[range(len(labels)), labels]) ** self.power


def two_classes(*, per_class=9):
    return load_synthetic(num_classes=2, per_class=per_class, image_size=16)
"""


@pytest.fixture
def my_package(tmp_path):
    """A package of a user's own beside a folder of configs that names it."""
    name = "my_package_of_" + tmp_path.name.replace("-", "_")
    (tmp_path / f"{name}.py").write_text(PACKAGE)
    for group, text in {
        "model": f"_target_: {name}.net\nwidth: 4\n",
        "loss": f"_target_: {name}.Loss\npower: 3\n",
        "data": f"_target_: {name}.two_classes\nper_class: 9\nval_fraction: 0.2\nmax_per_class: null\n",
    }.items():
        (tmp_path / "own" / group).mkdir(parents=True)
        (tmp_path / "own" / group / "mine.yaml").write_text(text)
    yield name
    sys.modules.pop(name, None)


OWN = ["--config-dir", "own", "experiment=smoke", "model=mine", "loss=mine", "data=mine"]


def test_model_loss_and_data_of_a_user_train(my_package, command):
    result = command(*OWN, f"plugins=[{my_package}]", "loss.power=1")
    assert result.code == 0, result.errors
    assert "2 classes" in result.out
    (run,) = Path("outputs/train/mine-mine").iterdir()
    # A trained model of such a package is used only where the package is named again.
    assert command("task=evaluate", f"checkpoint={run}", f"plugins=[{my_package}]").code == 0
    refused = command("task=evaluate", f"checkpoint={run}")
    assert refused.code == 2
    assert "may be named here" in refused.errors[0]
    assert cvtrain.load(run, plugins=[my_package]).class_names == ("class_000", "class_001")
    with pytest.raises(CheckpointError, match="may be named here"):
        cvtrain.load(run)


def test_loss_of_a_user_needs_no_init(my_package, command):
    with Path(f"{my_package}.py").open("a") as file:
        file.write("\n\nclass Plain(nn.Module):\n    def forward(self, logits, labels):\n")
        file.write("        return logits.logsumexp(1) - logits[range(len(labels)), labels]\n")
    Path("own/loss/mine.yaml").write_text(f"_target_: {my_package}.Plain\n")
    assert command(*OWN, f"plugins=[{my_package}]").code == 0
    refused = command(*OWN, f"plugins=[{my_package}]", "loss.power=3")
    assert refused.code == 2
    assert "power" in refused.errors[0]


def test_package_of_a_user_that_is_not_named_is_not_imported(my_package, command):
    result = command(*OWN)
    assert result.code == 2
    told = f"model._target_={my_package}.net (own/model/mine.yaml, line 1): only cvtrain.models may be named here"
    assert told in "\n".join(result.errors)
    assert my_package not in sys.modules
    assert not Path("outputs").exists()


def test_what_a_users_package_imports_is_not_allowed_with_it(my_package, command):
    for target in (f"{my_package}.torch.load", f"{my_package}.load_synthetic", f"{my_package}.torch"):
        result = command(f"model._target_={target}", f"plugins=[{my_package}]")
        assert result.code == 2, target


def test_broken_package_of_a_user_is_told_of(tmp_path, command):
    (tmp_path / "broken_package_of_mine.py").write_text("import no_such_thing_at_all\n")
    result = command("model._target_=broken_package_of_mine.net", "plugins=[broken_package_of_mine]")
    assert result.code == 2
    assert "its module fails: ModuleNotFoundError: No module named 'no_such_thing_at_all'" in result.errors[0]


@pytest.mark.parametrize(
    "argument", ["checkpoint_path", "pretrained_cfg_overlay.file", "pretrained_cfg.url", "cache_dir"]
)
def test_further_arguments_of_timm_cannot_name_files(argument, command):
    Path("evil.pth").write_bytes(b"")
    result = command("task=summary", "model=timm", f"model.kwargs.{argument}=evil.pth")
    assert result.code == 2
    assert f"model.kwargs sets {argument.partition('.')[0]}" in result.errors[0]
