"""Which trackers a command names, and where they have no effect."""

import importlib.util
import sys

import pytest

from cvtrain.check import check
from cvtrain.compose import compose
from cvtrain.config import config_dir, config_hash, load_config, save_text
from cvtrain.errors import ConfigError
from cvtrain.help import help_text, options_of
from cvtrain.trackers.options import OPTIONS, tracker_problems


def test_no_tracker_is_the_default():
    config = compose([])
    assert "tracker" not in config
    assert config["choices"]["tracker"] == "none"


def test_every_packaged_option_is_known():
    assert set(options_of("tracker", config_dir())) - {"none"} == set(OPTIONS)
    assert "tracker=" in help_text(config_dir())


@pytest.mark.parametrize("word", ["tracker=[tensorboard,mlflow]", "tracker=['tensorboard', 'mlflow']"])
def test_several_trackers_have_settings_of_their_own(word):
    config = compose([word, "tracker.mlflow.experiment=digits"])
    assert list(config["tracker"]) == ["tensorboard", "mlflow"]
    assert config["tracker"]["mlflow"]["experiment"] == "digits"
    assert config["choices"]["tracker"] == "[tensorboard,mlflow]"


def test_printed_config_composes_to_the_same_trackers(command, tmp_path):
    printed = command("--cfg", "job", "tracker=[tensorboard,wandb]", "tracker.wandb.mode=disabled")
    assert printed.code == 0
    (tmp_path / "mine.yaml").write_text(printed.out)
    again = compose(["--config-dir", str(tmp_path), "--config-name", "mine"])
    assert again["choices"]["tracker"] == "[tensorboard,wandb]"
    assert again["tracker"] == compose(["tracker=[tensorboard,wandb]", "tracker.wandb.mode=disabled"])["tracker"]


def test_trackers_change_no_hash():
    assert config_hash(compose(["tracker=[mlflow,wandb]"])) == config_hash(compose([]))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["tracker=[tensorboard,mlfow]"], "tracker=mlfow: did you mean tracker=mlflow"),
        (["model=[lenet,mlp]"], "unknown option model="),
        (["tracker.mlflow.uri=sqlite:///a.db"], "unknown key tracker.mlflow.uri.*tracker=mlflow"),
        (["tracker=mlflow", "tracker.mlflow.ury=x"], "did you mean tracker.mlflow.uri"),
        (["tracker=mlflow", "tracker.mlflow.uri=runs"], "tracker.mlflow.uri=runs: must be"),
        (["tracker=mlflow", "tracker.mlflow.uri='http://me:word@host'"], "MLFLOW_TRACKING_USERNAME"),
        (["tracker=wandb", "tracker.wandb.mode=on"], "offline | online | disabled"),
        (["task=audit", "tracker=mlflow"], "tracker has no effect with task=audit"),
        (["task=sample_size_sweep", "tracker=mlflow"], "tracker has no effect with task=sample_size_sweep"),
    ],
)
def test_wrong_settings_are_named(words, message):
    with pytest.raises(ConfigError, match=message.replace("|", r"\|")):
        compose(words)


@pytest.mark.parametrize("option", OPTIONS)
def test_missing_package_is_a_config_error_that_names_the_extra(option, monkeypatch):
    monkeypatch.setitem(sys.modules, OPTIONS[option].package, None)
    with pytest.raises(ConfigError, match=rf"pip install 'cvtrain\[{option}\]'"):
        check(compose([f"tracker={option}"]))


def test_option_that_is_no_tracker_is_refused():
    assert tracker_problems({"tracker": {"aim": {}}})[0].startswith("tracker.aim: is no tracker")


@pytest.fixture
def run(tmp_path):
    """The folder of a run with TensorBoard."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(save_text(compose(["tracker=tensorboard"])))
    return tmp_path / "run"


def test_resumed_run_keeps_its_trackers(run):
    config = compose([f"resume={run}"])
    assert config["tracker"] == load_config(run)["tracker"]
    assert config["choices"]["tracker"] == "tensorboard"


def test_resumed_run_may_be_told_to_others(run):
    config = compose([f"resume={run}", "tracker=[tensorboard,mlflow]", "tracker.mlflow.experiment=b"])
    assert config["choices"]["tracker"] == "[tensorboard,mlflow]"
    assert config["tracker"]["mlflow"]["experiment"] == "b"
    assert "tracker" not in compose([f"resume={run}", "tracker=none"])


def test_resumed_run_refuses_an_unknown_tracker(run):
    with pytest.raises(ConfigError, match="unknown option tracker=mlfow: did you mean tracker=mlflow"):
        compose([f"resume={run}", "tracker=mlfow"])


def test_multirun_has_one_choice_of_trackers(command):
    refused = command("--multirun", "tracker=tensorboard,mlflow", "sweep.name=a")
    assert refused.code == 2
    assert "one multirun has one tracker" in refused.errors[0]


def test_choosing_trackers_imports_none(process):
    found = importlib.util.find_spec("tensorboard")
    program = (
        "import sys; from cvtrain.compose import compose; compose(['tracker=[tensorboard,mlflow,wandb]'])\n"
        "import cvtrain.trackers.following\n"
        "print(sorted({'tensorboard', 'mlflow', 'wandb'} & set(sys.modules)))"
    )
    assert found is None or process("-c", program, program=()).out == "[]\n"
