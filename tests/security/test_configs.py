"""Configs that want to run code, read secrets or fill the memory: all are refused in words, and nothing happens."""

import json
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

SECRET = "hush-hush-8c1f"
GROUPS = ("data", "augment", "model", "loss", "optimizer", "scheduler")
GLOBAL = "# @package _global_\n"


class Evil:
    """Makes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return (Path.touch, (self.mark,))


@pytest.fixture
def mark(tmp_path, monkeypatch):
    """The file that every attack tries to make; whatever attacks need lies beside it."""
    tools = tmp_path.parent / f"{tmp_path.name}-tools"
    tools.mkdir()
    mark = tools / "was_here"
    (tools / "evil.pkl").write_bytes(pickle.dumps(Evil(mark)))
    np.save(tools / "evil.npy", np.array([Evil(mark)], dtype=object), allow_pickle=True)
    touch = f"import pathlib\npathlib.Path({str(mark)!r}).touch()\n"
    (tools / "hubconf.py").write_text(f"{touch}def entry():\n    pass\n")
    (tools / "evil_module.py").write_text(f"{touch}def run(**_):\n    pass\n")
    (tools / "evil_configs").mkdir()
    (tools / "evil_configs" / "__init__.py").write_text(touch)
    (tools / "model").mkdir()
    (tools / "model" / "far.yaml").write_text("_target_: os.system\n")
    monkeypatch.syspath_prepend(tools)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    yield mark
    sys.modules.pop("evil_module", None)


def payloads(mark: Path) -> dict[str, dict]:
    """What would make the mark, were it called: `_target_` and its arguments."""
    tools, touch = mark.parent, f"touch {mark}"
    path = {"_target_": "pathlib.Path", "_args_": [str(mark)]}
    calls = {
        "os.system": {"command": touch},
        "posix.system": {"command": touch},
        "logging.os.system": {"command": touch},
        "subprocess.run": {"args": ["touch", str(mark)]},
        "builtins.eval": {"_args_": [f"open({str(mark)!r}, 'w')"]},
        "builtins.exec": {"_args_": [f"open({str(mark)!r}, 'w')"]},
        "builtins.open": {"file": str(mark), "mode": "w"},
        "io.open": {"file": str(mark), "mode": "w"},
        "os.mkdir": {"path": str(mark)},
        "shutil.copyfile": {"src": str(tools / "evil.pkl"), "dst": str(mark)},
        "pathlib.Path.write_text": {"_args_": [path, "x"]},
        "torch.save": {"obj": 1, "f": str(mark)},
        "torch.load": {"f": str(tools / "evil.pkl"), "weights_only": False},
        "numpy.load": {"file": str(tools / "evil.npy"), "allow_pickle": True},
        "joblib.load": {"filename": str(tools / "evil.pkl")},
        "sympy.sympify": {"a": f"open({str(mark)!r}, 'w')"},
        "torch.hub.load": {"repo_or_dir": str(tools), "model": "entry", "source": "local"},
        "importlib.import_module": {"name": "evil_module"},
        "runpy.run_path": {"path_name": str(tools / "evil_module.py")},
        "evil_module.run": {},
    }
    return {target: {"_target_": target, **arguments} for target, arguments in calls.items()}


NAMES = list(payloads(Path("mark")))


def own(files: dict[str, str | dict]) -> None:
    """Writes a folder of configs as somebody sends it."""
    for name, content in files.items():
        path = Path("own") / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))


def assert_refused(result, mark: Path, *, codes=(2,), left=("own",)) -> None:
    said = "\n".join([result.out, *result.errors])
    assert result.code in codes, said
    assert 1 <= len(result.errors) <= 6
    assert "internal error" not in said
    assert "Traceback" not in said
    assert SECRET not in said
    assert not mark.exists()
    assert {path.name for path in Path.cwd().iterdir()} <= set(left)
    assert max(map(len, result.errors)) < 1000


@pytest.mark.parametrize(
    "name", ["builtins.open", "shutil.copyfile", "os.mkdir", "numpy.load", "evil_module.run", "torch.save"]
)
def test_attacks_work_where_nothing_is_refused(name, mark):
    """Hydra's own way to make objects: else the tests below would show nothing."""
    from hydra.utils import instantiate

    made = instantiate(payloads(mark)[name])
    if hasattr(made, "close"):
        made.close()
    assert mark.exists()


# ------------------------------------------------------------------------------------------------- objects by name


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("turn", [0, 1])
def test_target_of_a_group_calls_nothing(name, turn, mark, command):
    group = GROUPS[(NAMES.index(name) + 3 * turn) % len(GROUPS)]
    own({f"{group}/mine": payloads(mark)[name]})
    flags = ["--multirun"] if turn and group == "model" else []
    result = command("--config-dir", "own", f"{group}=mine", *flags)
    assert_refused(result, mark)
    assert any(f"{group}._target_={name}" in line and "may be named here" in line for line in result.errors)


PLACES = {
    "model.kwargs.activation": "model=timm",
    "model.kwargs.layers": "model=timm",
    "model.extra": "model=lenet",
    "data.transform": "data=digits",
    "trainer.callback": "trainer=default",
    "trainer.ema": "trainer=default",
    "loss.class_weights": "loss=cross_entropy",
    "optimizer.params": "optimizer=sgd",
    "anything": "seed=1",
    "name": "seed=1",
}


@pytest.mark.parametrize("name", NAMES)
def test_target_below_any_key_calls_nothing(name, mark, command):
    place = list(PLACES)[NAMES.index(name) % len(PLACES)]
    payload = payloads(mark)[name]
    settings = [payload] if NAMES.index(name) >= len(PLACES) else payload  # in lists too
    for key in reversed(place.split(".")):
        settings = {key: settings}
    own({"experiment/mine": GLOBAL + yaml.safe_dump(settings)})
    result = command("--config-dir", "own", PLACES[place], "experiment=mine")
    assert_refused(result, mark)
    assert any(place in line for line in result.errors)


@pytest.mark.parametrize("word", ["_partial_: true", "_args_: [1]", "_recursive_: false", "_convert_: all"])
@pytest.mark.parametrize("place", ["model", "model.kwargs", "data"])
def test_words_of_instantiation_are_no_settings(word, place, mark, command):
    key, value = word.split(": ")
    settings = {key: yaml.safe_load(value)}
    for part in reversed(place.split(".")):
        settings = {part: settings}
    own({"experiment/mine": GLOBAL + yaml.safe_dump(settings)})
    result = command("--config-dir", "own", "model=timm", "experiment=mine")
    assert_refused(result, mark)
    assert any(f"{place}.{key}" in line and "own/experiment/mine.yaml, line" in line for line in result.errors)


def test_code_that_is_named_in_a_file_is_not_imported(mark, command):
    own({"experiment/mine": GLOBAL + "plugins: [evil_module]\nmodel: {_target_: evil_module.run}\n"})
    result = command("--config-dir", "own", "experiment=mine")
    assert_refused(result, mark)
    assert "plugins=[evil_module] stands in a file" in result.errors[0]
    assert "(own/experiment/mine.yaml, line 2)" in result.errors[0]


# ------------------------------------------------------------------------------------------------- settings of Hydra

HYDRA = {
    "callbacks": {"evil": {"_target_": "evil_module.run"}},
    "job_logging.handlers": {"evil": {"class": "evil_module.run"}},
    "hydra_logging.handlers": {"evil": {"()": "evil_module.run"}},
    "run.dir": "elsewhere",
    "sweep.dir": "elsewhere",
    "sweep.subdir": "../elsewhere",
    "output_subdir": "raw",
    "job.chdir": True,
    "job.env_set": {"LD_PRELOAD": "evil.so"},
    "job.env_copy": ["AWS_SECRET_ACCESS_KEY"],
    "searchpath": ["pkg://evil_configs"],
    "launcher._target_": "evil_module.run",
    "launcher.setup": ["touch was_here"],
    "sweeper._target_": "evil_module.run",
    "sweeper.custom_search_space": "evil_module.run",
    "sweeper.params": {"plugins": "[evil_module]"},
    "sweeper.params.hydra/launcher": "joblib",
    "sweeper.params.hydra.launcher._target_": "evil_module.run",
    "sweeper.params.model._target_=evil_module.run plugins": "[evil_module]",
    "overrides.task": ["plugins=[evil_module]"],
    "overrides.hydra": ["hydra.launcher._target_=evil_module.run"],
    "mode": "MULTIRUN",
}


@pytest.mark.parametrize("key", HYDRA)
def test_settings_of_hydra_in_a_file_have_no_effect(key, mark, command):
    parts = ["sweeper", "params", key.removeprefix("sweeper.params.")] if "params." in key else key.split(".")
    settings = HYDRA[key]
    for part in reversed(parts):
        settings = {part: settings}
    root = {"defaults": ["config", "_self_"], "hydra": settings}
    own({"mine": root, "experiment/mine": GLOBAL + yaml.safe_dump({"hydra": settings})})
    ways = (["--multirun", "experiment=mine"], ["--config-name", "mine"], ["experiment=mine"])
    result = command("--config-dir", "own", *ways[list(HYDRA).index(key) % len(ways)])
    assert_refused(result, mark)
    assert any("hydra" in line for line in result.errors)


OTHER_WAYS = {
    "header of a group": {"model/mine": "# @package hydra.callbacks\nevil: {_target_: evil_module.run}\n"},
    "header of the root": {"model/mine": "# @package hydra.job\nenv_set: {LD_PRELOAD: evil.so}\n"},
    "package in defaults": {
        "model/mine": "defaults: [lenet, /model@hydra.callbacks.evil: harmless]\n",
        "model/harmless": "_target_: evil_module.run\n",
    },
    "file outside of the folder": {"model/mine": "defaults: [../../../{tools}/model/far]\n"},
    "absolute file": {"model/mine": "defaults: ['/../{tools}/model/far']\n"},
    "address": {"model/mine": "defaults: ['pkg://evil_configs/x']\n"},
    "option of Hydra's": {
        "model/mine": "defaults: [lenet]\n",
        "hydra/launcher/isolated": "_target_: evil_module.run\n",
    },
    "sweeper of Hydra's": {"model/mine": "defaults: [lenet]\n", "hydra/sweeper/grid": "_target_: evil_module.run\n"},
}


@pytest.mark.parametrize("way", OTHER_WAYS)
def test_settings_of_hydra_are_reached_by_no_other_way(way, mark, command):
    own({name: text.replace("{tools}", str(mark.parent)) for name, text in OTHER_WAYS[way].items()})
    flags = ["--multirun"] if list(OTHER_WAYS).index(way) % 2 else []
    assert_refused(command("--config-dir", "own", "model=mine", *flags), mark)


def test_launcher_of_a_file_is_not_taken(mark, command):
    own({"hydra/launcher/mine": "_target_: evil_module.run\n"})
    result = command("--config-dir", "own", "--multirun", "hydra/launcher=mine", "seed=1,2")
    assert_refused(result, mark)
    assert "holds no options of Hydra's own" in result.errors[0]


def test_harmless_settings_of_hydra_may_stand_in_a_file(command):
    sweep = "hydra: {launcher: {n_jobs: 1}, sweeper: {params: {model.hidden: '[3],[4]'}}}\n"
    own({"mine": f"defaults: [config, override hydra/launcher: joblib, _self_]\n{sweep}"})
    assert command("--config-dir", "own", "--config-name", "mine", "--cfg", "job").code == 0


# ------------------------------------------------------------------------------------------------- references

REFERENCES = {
    "name": "${oc.env:AWS_SECRET_ACCESS_KEY}",
    "output_dir": "out-${oc.env:AWS_SECRET_ACCESS_KEY}",
    "seed": "${oc.env:AWS_SECRET_ACCESS_KEY,3}",
    "data.root": "${oc.decode:'${oc.env:AWS_SECRET_ACCESS_KEY}'}",
    "model.name": "${oc.select:nothing,${oc.env:AWS_SECRET_ACCESS_KEY}}",
    "trainer.device": "${oc.create:{a:'${oc.env:AWS_SECRET_ACCESS_KEY}'}}",
    "trainer.epochs": "${oc.env:${oc.decode:AWS_SECRET_ACCESS_KEY}}",
    "plugins": ["${oc.env:AWS_SECRET_ACCESS_KEY}"],
    "optimizer.lr": "${eval:1+1}",
    "optimizer.momentum": "${python:open}",
    "loss.label_smoothing": "${hydra:runtime.cwd}",
    "sweep.name": "${now:%Y}/../../x",
    "scheduler._target_": "${oc.env:AWS_SECRET_ACCESS_KEY}",
    "augment.flip": "${oc.env:SLURM_JWT}",
}


@pytest.mark.parametrize("key", REFERENCES)
def test_references_reach_no_secret_and_call_nothing(key, mark, command):
    settings = REFERENCES[key]
    for part in reversed(key.split(".")):
        settings = {part: settings}
    own({"experiment/mine": GLOBAL + yaml.safe_dump(settings)})
    result = command("--config-dir", "own", "experiment=mine")
    assert_refused(result, mark)
    assert any(key in line and "own/experiment/mine.yaml, line" in line for line in result.errors)


def test_refused_variable_says_what_to_type(mark, command):
    result = command("name=${oc.env:AWS_SECRET_ACCESS_KEY}")
    assert_refused(result, mark)
    assert 'is not for configs; type KEY="$AWS_SECRET_ACCESS_KEY", or name the variable CVTRAIN_' in result.errors[0]


BOMBS = {
    "aliases": "z: &z0 [1,1,1,1,1,1,1,1,1]\n"
    + "".join(f"y{i}: &z{i} [{','.join([f'*z{i - 1}'] * 9)}]\n" for i in range(1, 30)),
    "alias in itself": "a: &a [*a]\n",
    "references in texts": "\n".join(
        [*(f"a{i}: '{'${a' + str(i + 1) + '}'}{'${a' + str(i + 1) + '}'}'" for i in range(60)), "a60: lol"]
    ),
    "references in lists": "\n".join(
        [*(f"a{i}: ['${{a{i + 1}}}', '${{a{i + 1}}}', '${{a{i + 1}}}']" for i in range(20)), "a20: [1]"]
    ),
    "circle of references": "seed: ${trainer.steps}\ntrainer: {steps: '${seed}'}\n",
    "depth": f"seed: {'[' * 5000}{']' * 5000}\n",
    "mapping of mappings": f"seed: {'{a: ' * 500}1{'}' * 500}\n",
    "size": f"seed: 1\n# {'x' * 200_000}\n",
    "many keys": "".join(f"k{i}: 1\n" for i in range(12_000)),
    "number without end": f"seed: {'9' * 5000}\n",
    "tag of Python": "seed: !!python/object/apply:os.system ['touch was_here']\n",
    "name of Python": "seed: !!python/name:os.system\n",
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_bombs_are_refused_before_they_grow(bomb, mark, command):
    own({"experiment/mine": GLOBAL + BOMBS[bomb]})
    result = command("--config-dir", "own", "experiment=mine")
    assert_refused(result, mark)


@pytest.mark.parametrize("word", ["seed=" + "[" * 5000, "seed=" + "[" * 400 + "]" * 400, "name=" + "x" * 120_000])
def test_words_that_no_parser_survives_are_refused(word, mark, command):
    for flags in ([], ["--multirun"]):
        assert_refused(command(*flags, word), mark)


# ------------------------------------------------------------------------------------------------- runs of others


@pytest.fixture
def run(tmp_path, monkeypatch):
    """The folder of a run that somebody sends: its settings, to be changed."""
    from cvtrain.compose import compose
    from cvtrain.config import save_text

    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "run"
    folder.mkdir()
    settings = yaml.safe_load(save_text(compose(["experiment=smoke", "model=timm", "data=cifar10"])))

    def write(change) -> Path:
        changed = json.loads(json.dumps(settings))
        text = change(changed)
        (folder / "config.yaml").write_text(text if isinstance(text, str) else yaml.safe_dump(changed))
        return folder

    return write


def put(key: str, value):
    def change(settings: dict) -> None:
        *nodes, name = key.split(".")
        for node in nodes:
            settings = settings[node]
        settings[name] = value

    return change


RUNS = {
    **{f"{group} calls os.system": put(f"{group}._target_", "os.system") for group in GROUPS},
    "model calls a module": put("model._target_", "evil_module.run"),
    "plugin": lambda c: (put("plugins", ["evil_module"])(c), put("model._target_", "evil_module.run")(c))[1],
    "below model.kwargs": put("model.kwargs", {"a": {"_target_": "evil_module.run"}}),
    "task that is a module": put("task", "..evil_module"),
    "task that is a path": put("task", "../../evil_module"),
    "no group": put("trainer", ["os.system"]),
    "group of nothing": put("model", None),
    "choices that are none": put("choices", 3),
    "choice that is none": put("choices.model", {"_target_": "os.system"}),
    "wrong type": put("trainer.batch_size", "many"),
    "lack of a key": lambda c: c["trainer"].pop("batch_size") and None,
    "reference": put("name", "${oc.env:AWS_SECRET_ACCESS_KEY}"),
    "tag of Python": lambda _: "choices: !!python/object/apply:os.system ['touch was_here']\n",
    "aliases": lambda _: BOMBS["aliases"] + "choices: {}\n",
    "number without end": lambda _: f"choices: {{}}\nseed: {'9' * 5000}\n",
    "no mapping": lambda _: "- choices\n",
}


@pytest.mark.parametrize("attack", RUNS)
def test_settings_of_a_run_of_others_have_no_effect(attack, run, mark, command):
    folder = run(RUNS[attack])
    before = (folder / "config.yaml").read_bytes()
    for words in ([f"resume={folder}"], ["task=evaluate", f"checkpoint={folder}"]):
        assert_refused(command(*words), mark, codes=(2, 4), left=("run",))
    assert [path.name for path in folder.iterdir()] == ["config.yaml"]
    assert (folder / "config.yaml").read_bytes() == before


@pytest.mark.parametrize(
    "word",
    [
        "plugins=[evil_module]",
        "hydra.launcher._target_=evil_module.run",
        "hydra.launcher.setup=[touch was_here]",
        "hydra.callbacks.evil._target_=evil_module.run",
        "hydra.searchpath=[pkg://evil_configs]",
    ],
)
def test_words_of_a_sweep_of_others_are_not_typed_by_us(word, mark, command):
    from cvtrain.jobs.ledger import Command, Ledger

    Path("own").mkdir()
    ledger = Ledger(Path("own/sweep"))
    ledger.path.mkdir()
    ledger.write_command(Command(["seed=1,2", word], None, "config", has_secrets=False))
    result = command("resume=own/sweep")
    assert_refused(result, mark)
    assert f"{word}: is read from own/sweep, and has to be typed" in result.errors[0]
    assert [path.name for path in ledger.path.iterdir()] == ["sweep.json"]


# ------------------------------------------------------------------------------------------------- real processes

SAYS_WHAT_WAS_LOADED = """
import sys
from cvtrain.cli import main
try:
    main(sys.argv[1:])
finally:
    print("LOADED", sorted({"torch", "numpy", "evil_module", "evil_configs"} & set(sys.modules)))
"""


@pytest.mark.parametrize(
    "words",
    [
        ["experiment=mine"],
        ["--multirun", "experiment=mine", "seed=1,2"],
        ["--info", "all", "--config-name", "far"],
    ],
    ids=" ".join,
)
def test_process_refuses_hostile_files_before_anything_is_loaded(words, mark, process, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    target = "model: {_target_: os.system, command: touch was_here}\nname: ${oc.env:AWS_SECRET_ACCESS_KEY}\n"
    own(
        {
            "experiment/mine": GLOBAL + target,
            "far": "defaults: [config, _self_]\nhydra: {searchpath: ['pkg://evil_configs']}\n",
        }
    )
    environment = {"PYTHONPATH": f"{mark.parent}:{Path(__file__).parents[2]}"}
    result = process("--config-dir", "own", *words, program=("-c", SAYS_WHAT_WAS_LOADED), **environment)
    assert_refused(result, mark)
    assert result.out.splitlines()[-1] == "LOADED []"
