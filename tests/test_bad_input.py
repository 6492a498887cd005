"""Whatever is typed wrong ends in a few lines that say what, where, and what to type instead; and leaves nothing."""

from pathlib import Path

import pytest

BAD_KEYS = {
    "optimizer.lrr=1": "unknown key optimizer.lrr: did you mean optimizer.lr?",
    "+optimizer.lrr=1": "unknown key optimizer.lrr: did you mean optimizer.lr?",
    "++optimizer.lrr=1": "unknown key optimizer.lrr: did you mean optimizer.lr?",
    "optimiser.lr=1": "unknown key optimiser.lr: did you mean optimizer.lr?",
    "trainer.epoch=3": "unknown key trainer.epoch: did you mean trainer.epochs?",
    "trainer.early_stoping.patience=3": "did you mean trainer.early_stopping.patience?",
    "epochs=3": "unknown key epochs: did you mean trainer.epochs?",
    "sead=3": "unknown key sead: did you mean seed?",
    "foo.bar=1": "unknown key foo.bar: cvtrain --cfg job shows all keys",
    "model.hidden=[3]": "unknown key model.hidden: model=lenet has none; model=alexnet, model=mlp",
    "checkpoint=x": "unknown key checkpoint: task=train has none; task=evaluate, task=export, task=predict have it",
    "model._partial_=true": "unknown key model._partial_",
    "model._args_=[1]": "unknown key model._args_",
    "hydra.run.dir=x": "hydra.run.dir=x: settings of Hydra work with --multirun only",
    "hydra/launcher=basic": "settings of Hydra work with --multirun only",
    "trainer.freeze.x=3": "trainer.freeze.x=3: trainer.freeze holds no keys",
    "trainer.epochs.x=3": "trainer.epochs={x:3}: must be a whole number",
    "trainer.early_stopping=null": "trainer.early_stopping=null: is no value but a group of keys: metric, patience",
    "~trainer.epochs": "~trainer.epochs: no key can be left out",
    "~data.val_fraction": "~data.val_fraction: no key can be left out",
    "~model": "~model: model cannot be left out; type model=OPTION",
}

BAD_VALUES = {
    "optimizer.lr=abc": "optimizer.lr=abc: must be a number > 0",
    "optimizer.lr=true": "optimizer.lr=true: must be a number > 0",
    "optimizer.lr='1e-3'": "optimizer.lr=1e-3: must be a number > 0; leave out the quotes",
    "optimizer.lr=[1]": "optimizer.lr=[1]: must be a number > 0",
    "optimizer.lr={a:1}": "optimizer.lr={a:1}: must be a number > 0",
    "optimizer.lr=": "optimizer.lr=: must be a number > 0",
    "optimizer.lr=null": "optimizer.lr=null: must be a number > 0",
    "optimizer.lr=-1": "optimizer.lr=-1: must be a number > 0",
    "optimizer.lr=0": "optimizer.lr=0: must be a number > 0",
    "optimizer.lr=nan": "optimizer.lr=nan: must be a number > 0",
    "optimizer.lr=inf": "optimizer.lr=inf: must be a number > 0",
    "optimizer.nesterov=1": "optimizer.nesterov=1: must be true or false",
    "trainer.epochs=1.5": "trainer.epochs=1.5: must be a whole number from 1 to 999999999 or null",
    "trainer.epochs=true": "trainer.epochs=true: must be a whole number",
    "trainer.epochs=0": "trainer.epochs=0: must be a whole number",
    "trainer.epochs=9999999999": "trainer.epochs=9999999999: must be a whole number",
    "trainer.epochs=null": "trainer.epochs and trainer.steps are both null: set one of them",
    "trainer.batch_size=0": "trainer.batch_size=0: must be a whole number >= 1",
    "trainer.batch_size=[1]": "trainer.batch_size=[1]: must be a whole number >= 1",
    "trainer.channels_last=no": "trainer.channels_last=no: must be true or false",
    "trainer.ema=1": "trainer.ema=1: must be a number from 0 to less than 1 or null",
    "trainer.freeze=features": "trainer.freeze=features: must be a list of name patterns",
    "trainer.freeze=[nothing.*]": "trainer.freeze: 'nothing.*' matches no parameter",
    "trainer.precision=half": "trainer.precision=half: must be auto | fp32 | bf16 | fp16",
    "trainer.precision=fp16": "trainer.precision=fp16 needs a GPU",
    "trainer.device=gpu": "trainer.device=gpu: must be auto | cpu | cuda | cuda:N | mps",
    "trainer.evaluate_every=epochs": "trainer.evaluate_every=epochs: must be epoch or a whole number >= 1",
    "data.val_fraction=1.0": "data.val_fraction=1.0: must be a number from 0 to less than 1",
    "data.image_size=a": "data.image_size=a: must be a whole number from 1 to 4096",
    "augment.flip=yes": "augment.flip=yes: must be none | random | alternating",
    "loss.label_smoothing=1": "loss.label_smoothing=1: must be a number from 0 to less than 1",
    "loss.class_weights=[1,0]": "loss.class_weights=[1,0]: must be auto or a list of numbers > 0 or null",
    "loss.class_weights=[1,2]": "loss.class_weights has 2 numbers for 10 classes",
    "scheduler.anneal=x": "scheduler.anneal=x: must be cosine | linear",
    "seed=-1": "seed=-1: must be a whole number from 0",
    "name='a/b'": "name=a/b: must be a word of letters, digits",
    "output_dir=''": "output_dir=: must be a path",
    "seed=${oc.env:CVTRAIN_UNSET}": "seed=${oc.env:CVTRAIN_UNSET}: the environment variable CVTRAIN_UNSET is not set",
    "seed=${nothing}": "seed=${nothing}: there is no key nothing",
    "seed=${seed}": "seed=${seed}: it refers to itself",
    "plugins=[no_such_package]": "plugins=[no_such_package]: there is no package no_such_package",
    "plugins=[os]": "plugins=[os]: only a package of your own can be a plugin",
    "plugins=[torch]": "plugins=[torch]: only a package of your own can be a plugin",
}

BAD_OPTIONS = {
    "model=vgg61": "unknown option model=vgg61: did you mean model=vgg19? There are alexnet, block_cnn",
    "task=foo": "There are audit, benchmark, compare, evaluate, export, find_lr, predict, report, sample_size_sweep",
    "data=cifar_10": "did you mean data=cifar10? There are cifar10, cifar100",
    "experiment=smok": "unknown option experiment=smok: did you mean experiment=smoke?",
    "trainer={epochs:3}": "unknown option trainer={epochs:3}: There are ddp, default",
    "data=[digits,mnist]": "unknown option data=[digits,mnist]",
    "model=": "unknown option model=: There are alexnet",
    "modle=vgg16": "unknown key modle: did you mean model=vgg16?",
    "optimiser=something": "unknown key optimiser: did you mean optimizer=OPTION?",
    "loss=null": "loss=null: loss cannot be left out; type loss=OPTION",
    "model@here=vgg16": "model@here=vgg16: cannot be read",
}

BAD_WORDS = {
    "trainer.epochs": "trainer.epochs: a setting is written trainer.epochs=VALUE",
    "epochs": "epochs: a setting is written trainer.epochs=VALUE",
    "vgg16": "vgg16: did you mean model=vgg16?",
    "trainer.epochs = 3": "a setting is written without spaces: KEY=VALUE",
    "optimizer.lr=0.1,0.2": "optimizer.lr=0.1,0.2: several values need --multirun; a list is written [a,b]",
    "model=vgg16,lenet": "model=vgg16,lenet: several values need --multirun",
    "output_dir=a=b": "output_dir=a=b: cannot be read; quote special characters",
    "=3": "=3: cannot be read",
    "--epochs 3": "unknown flag --epochs: did you mean trainer.epochs=3?",
    "--epochs=3": "unknown flag --epochs: did you mean trainer.epochs=3?",
    "--trainer.epochs=3": "unknown flag --trainer.epochs: did you mean trainer.epochs=3?",
    "--lr 0.1": "unknown flag --lr: did you mean optimizer.lr=0.1?",
    "--batch-size 64": "unknown flag --batch-size: did you mean trainer.batch_size=64?",
    "--model vgg16": "unknown flag --model: did you mean model=vgg16?",
    "--verison": "unknown flag --verison: did you mean --version?",
    "-x": "unknown flag -x: settings are written GROUP.KEY=VALUE",
    "--config-dir nowhere": "--config-dir nowhere: there is no such folder",
    "--config-name confg": "--config-name confg: did you mean --config-name config?",
    "--config-name": "--config-name/-cn: expected one argument",
    "--cfg": "--cfg : type --cfg job",
    "--cfg hydra": "--cfg hydra: type --cfg job",
}

CLASHES = {
    "trainer.epochs=3 trainer.steps=3": "trainer.epochs and trainer.steps are both set: choose one",
    "trainer.accumulate=9 trainer.batch_size=8": "trainer.accumulate=9: cannot part a batch of 8",
    "augment.mixup=1 augment.cutmix=1": "augment.mixup and augment.cutmix are both on: choose one",
    "trainer.early_stopping.patience=3 data.val_fraction=0": "needs validation images: data.val_fraction is 0",
    "scheduler=plateau data.val_fraction=0": "scheduler=plateau needs validation images: data.val_fraction is 0",
    "trainer.freeze=['*']": "trainer.freeze leaves no parameter to train",
    "scheduler.warmup_epochs=1 scheduler.warmup_steps=3": "scheduler.warmup_steps are both set: choose one",
    "optimizer=nesterov optimizer.momentum=0": "optimizer.nesterov=true needs optimizer.momentum > 0",
    "optimizer=sgd optimizer.nesterov=true": "optimizer.nesterov=true needs optimizer.momentum > 0",
    "optimizer.dampening=0.1": "optimizer.nesterov=true needs optimizer.dampening=0",
    "trainer.early_stopping.min_epochs=3": "has no effect without trainer.early_stopping.patience",
    "augment.crop_fill=zeros": "augment.crop_fill has no effect without augment.crop_padding",
    "scheduler=plateau scheduler.gamma=1": "scheduler.gamma is 1; it must be a number above 0 and below 1",
    "model=mlp model.dropout=null": "model.dropout=null: must be a number from 0 to less than 1",
    "model=mlp model.hidden=[8,a]": "model.hidden=[8,a]: must be a list of whole numbers >= 1",
    "model=mlp model.hidden=[] model.dropout=0.5": "model.dropout=0.5 has no effect without hidden layers",
    "model=timm model.kwargs=3": "model.kwargs=3: must be a dictionary",
    "model=timm model.name=resnet19": "model.name=resnet19 is not a classification model of timm",
    "model=torchvision model.weights=FOO": "model.weights=FOO is unknown for resnet18",
    "model=torchvision model.kwargs.foo=3": "unexpected keyword argument 'foo'",
    "optimizer=muon model=linear": "optimizer Muon refuses its options",
    "optimizer._target_=torch.optim.Adam": "optimizer.momentum (the default of optimizer=nesterov): torch.optim",
    "data=digits loss=bce": "loss=bce has one output for 2 classes; the training images have 10 classes",
    "data=image_folder": "data.root is needed: data.root=FOLDER, which holds train/<class>/",
    "data=image_csv": "data.root is needed: data.root=FOLDER, which holds images and labels.csv",
    "data=palm": "data.root is needed: data.root=FOLDER, which holds PALM-Training400/",
    "data=food11": "data.root is needed: data.root=PATH of the folder that holds training/",
    "data=palm data.root=x data.use_validation_as=train": "data.use_validation_as=train: must be test | val",
    "data=food11 data.root=x loss=bce": "loss=bce has one output for 2 classes; the training images have 11 classes",
    "data=synthetic data.image_size=16 model=vgg16": "vgg16 needs images of at least 32 px; these have 16 px",
    "data=mnist model=conv_pool": "conv_pool needs images of at least 32 px; these have 28 px",
    "task=evaluate": "task=evaluate needs a trained model: checkpoint=RUN",
    "task=predict": "task=predict needs checkpoint=",
}

ALL = BAD_KEYS | BAD_VALUES | BAD_OPTIONS | BAD_WORDS | CLASHES


def assert_refused(result, code: int, message: str) -> None:
    assert result.code == code, result.errors
    assert result.errors[0].startswith("error: ")
    assert any(message in line for line in result.errors), result.errors
    assert len(result.errors) <= 6
    assert not any("Traceback" in line or "internal error" in line for line in result.errors)


@pytest.mark.parametrize("line", ALL)
def test_wrong_words_are_explained_and_leave_no_folder(line, command):
    result = command(*line.split(" "))
    assert_refused(result, 2, ALL[line])
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.parametrize("device", ["cuda", "cuda:7", "mps"])
def test_missing_device_says_what_is_there(device, command):
    import torch

    if torch.cuda.is_available() or torch.backends.mps.is_available():
        pytest.skip("this machine has an accelerator")
    result = command(f"trainer.device={device}")
    assert_refused(result, 2, f"trainer.device={device}: no ")
    assert "there is cpu" in result.errors[0]


def test_all_problems_of_a_command_are_reported_at_once(command):
    result = command(
        "--epochs", "3", "optimizer.lr=-1", "model=vgg61", "trainer.batch_sise=3", "trainer.device=cuda:99"
    )
    assert_refused(result, 2, "unknown flag --epochs")
    told = "\n".join(result.errors)
    for mistake in ("optimizer.lr=-1", "model=vgg61", "trainer.batch_sise", "trainer.device=cuda:99"):
        assert mistake in told
    assert len(result.errors) == 5


def test_parts_that_do_not_fit_are_reported_at_once(command):
    result = command(
        "data=mnist", "model=conv_pool", "loss=bce", "trainer.precision=fp16", "optimizer._target_=os.getcwd"
    )
    assert_refused(result, 2, "optimizer._target_=os.getcwd")
    result = command("data=mnist", "model=conv_pool", "loss=bce", "trainer.precision=fp16")
    assert_refused(result, 2, "conv_pool needs images of at least 32 px")
    assert any("loss=bce" in line for line in result.errors)
    assert Path("outputs").exists() is False


def test_more_mistakes_than_lines_are_counted(command):
    wrong = [f"trainer.wrong_{i}=1" for i in range(9)]
    result = command(*wrong)
    assert len(result.errors) == 6
    assert result.errors[-1].strip() == "... and 4 more"


# ------------------------------------------------------------------------------------------------- files of the user


GLOBAL = "# @package _global_\n"
MINE = "own/experiment/mine.yaml"

BAD_EXPERIMENTS = {
    "trainer:\n  epoch: 3\n": f"unknown key trainer.epoch ({MINE}, line 3): did you mean trainer.epochs?",
    "sead: 3\n": f"unknown key sead ({MINE}, line 2): did you mean seed?",
    "trainer.epochs: 3\n": f"unknown key 'trainer.epochs' ({MINE}, line 2): in a file dots do not part keys",
    "trainer:\n  early_stopping.patience: 3\n": "write early_stopping: {patience: ...}",
    "trainer:\n  epochs: -1\n": f"trainer.epochs=-1 ({MINE}, line 3): must be a whole number",
    "trainer:\n  epochs: '3'\n": "must be a whole number from 1 to 999999999 or null; leave out the quotes",
    "trainer:\n  epochs: 3  epochs\n": f"trainer.epochs=3  epochs ({MINE}, line 3): must be a whole number",
    "optimizer:\n  lr: 1,5\n": f"optimizer.lr=1,5 ({MINE}, line 3): must be a number > 0",
    "optimizer:\n  lr: .nan\n": f"optimizer.lr=nan ({MINE}, line 3): must be a number > 0",
    "trainer:\n  channels_last: no\n  compile: 1\n": f"trainer.compile=1 ({MINE}, line 4): must be true or false",
    "seed: 2026-01-01\n": f"seed=2026-01-01 ({MINE}, line 2): must be a whole number",
    "name: a/b\n": f"name=a/b ({MINE}, line 2): must be a word of letters",
    "model: 3\n": f"model=3 ({MINE}, line 2): is no value but a group of keys",
    "model:\n": f"model=null ({MINE}, line 2): is no value but a group of keys",
    "trainer: [3]\n": "in experiment/mine: a list stands where keys belong, or keys where a list does",
    "trainer: ${data}\n": f"unknown key trainer._target_ ({MINE}, line 2)",
    "trainer:\n\tepochs: 3\n": f"{MINE}, line 3, column 1: is no YAML",
    "trainer:\n \tepochs: 3\n": "; indent with spaces, not with tabs",
    "trainer:\n  epochs: [3\n": f"{MINE}, line 4, column 1: is no YAML",
    "trainer:\n  epochs: 3\n   batch_size: 4\n": f"{MINE}, line 4, column ",
    "trainer:\n  epochs: 3\nseed: 1\ntrainer:\n  ema: 0.9\n": f"{MINE}, line 5, column 1: trainer stands there twice",
    "seed: 'x\n": f"{MINE}, line 3, column 1: is no YAML",
    "seed: *nothing\n": f"{MINE}, line 2, column 7: *nothing is no anchor above",
    "seed: 1\n---\nseed: 2\n": f"{MINE}, line 3, column 1: a config is one document",
    "- seed: 3\n": f"{MINE}, line 2, column 1: a config is made of KEY: VALUE lines, and is no list",
    "seed 3\n": f"{MINE}, line 2, column 1: a config is made of KEY: VALUE lines",
    "? [a, b]\n: 3\n": f"{MINE}, line 2, column 3: a key is a word",
    "null: 3\n": f"{MINE}: Incompatible key type 'NoneType'",
    "seed: !!set {a}\n": f"{MINE}: seed: Value 'set' is not a supported primitive type",
    "seed: ${nothing.at.all}\n": "seed=${nothing.at.all}: there is no key nothing.at.all",
    "seed: ${trainer.steps}\ntrainer: {steps: '${seed}'}\n": f"it refers to itself ({MINE}, line 2)",
    "seed: ${oc.env:CVTRAIN_UNSET}\n": f"the environment variable CVTRAIN_UNSET is not set ({MINE}, line 2)",
    "seed: ${seed\n": f"{MINE}: seed: no viable alternative",
    "defaults: 3\n": "Invalid defaults list in 'experiment/mine', defaults must be a list",
    "defaults: [mine]\n": "files of yours name each other in a circle",
    "defaults: [override /model: vgg61]\n": "unknown option model=vgg61: did you mean model=vgg19?",
    "defaults: [override /modle: vgg16]\n": "in experiment/mine: Could not override 'modle'",
    "defaults: [{model: vgg16}]\n": "an option of another group is chosen by: - override /model: vgg16",
    "plugins: [mine]\n": f"code is allowed on the command line only ({MINE}, line 2)",
    "resume: x\n": f"resume=x stands in a file: a run is continued by typing it ({MINE}, line 2)",
    "task: evaluate\n": f"task ({MINE}, line 2): evaluate in a file is not train, the option chosen",
    "hydra: {run: {dir: x}}\n": f"hydra.run.dir ({MINE}, line 2) stands in a file",
    "augment: {mixup: 1, cutmix: 1}\n": f"both on: choose one (augment.mixup: {MINE}, line 2; augment.cutmix: {MINE}",
    "trainer: {epochs: 2, steps: 3}\n": f"are both set: choose one (trainer.epochs: {MINE}, line 2",
    "trainer:\n  accumulate: 999\n": f"trainer.accumulate=999 ({MINE}, line 3): cannot part a batch of 128",
    "data: {num_classes: 8}\n": f"unknown key data.num_classes ({MINE}, line 2): data=digits has none",
    "optimizer: {_target_: torch.optim.Adam}\n": "optimizer.momentum (the default of optimizer=nesterov): torch.optim",
}


@pytest.mark.parametrize("text", BAD_EXPERIMENTS)
def test_mistakes_in_an_experiment_are_explained_with_their_line(text, command):
    write_own("experiment/mine.yaml", GLOBAL + text)
    result = command("--config-dir", "own", "experiment=mine")
    assert_refused(result, 2, BAD_EXPERIMENTS[text])
    assert [path.name for path in Path.cwd().iterdir()] == ["own"]


def write_own(path: str, text: str | bytes) -> None:
    file = Path("own") / path
    file.parent.mkdir(parents=True)
    file.write_bytes(text if isinstance(text, bytes) else text.encode())


BAD_FILES = [
    ("experiment/mine.yaml", "seed: 3\n", "experiment=mine", "its first line has to be: # @package _global_"),
    ("experiment/mine.yaml", "", "experiment=mine", "its first line has to be: # @package _global_"),
    ("experiment/mine.yaml", "# @package a b\n", "experiment=mine", "Too many components in '@package a b'"),
    ("experiment/mine.yaml", b"# @package _global_\nname: caf\xe9\n", "experiment=mine", "line 2: is not UTF-8"),
    ("experiment/mine.yaml", "seed: 3\n".encode("utf-16"), "experiment=mine", "line 1: is not UTF-8 text"),
    ("experiment/mine.yaml", b"seed: \x00\n", "experiment=mine", "own/experiment/mine.yaml"),
    ("experiment/mine.yaml/x", "", "experiment=mine", "unknown option experiment=mine"),
    ("experiment", "", "experiment=mine", "unknown option experiment=mine"),
    ("trainer/mine.yaml", "defaults: [default, _self_]\nepoch: 3\n", "trainer=mine", "did you mean trainer.epochs?"),
    (
        "trainer/mine.yaml",
        "defaults: [default, _self_]\nepochs: x\n",
        "trainer=mine",
        "trainer.epochs=x (own/trainer/mine.yaml, line 2): must be",
    ),
    ("trainer/mine.yaml", "epochs: 3\n", "trainer=mine", "keys are missing"),
    ("trainer/mine.yaml", "", "trainer=mine", "trainer={}: is no value but a group of keys: epochs"),
    ("model/mine.yaml", "defaults: [mlp, _self_]\nhiden: [3]\n", "model=mine", "did you mean model.hidden?"),
    ("model/mine.yaml", "defaults: [mpl]\n", "model=mine", "in model/mine: unknown option model=mpl"),
    ("model/mine.yaml", "_target_: ???\n", "model=mine", "model._target_ (own/model/mine.yaml, line 1): is needed"),
    ("model/mine.yaml", "hidden: [3]\n", "model=mine", "model._target_=None: not a dotted name"),
    (
        "optimizer/mine.yaml",
        "_target_: os.system\n",
        "optimizer=mine",
        "optimizer._target_=os.system (own/optimizer/mine.yaml, line 1): only",
    ),
    ("mine.yaml", "defaults: [config, _self_]\nsead: 3\n", "--config-name mine", "did you mean seed?"),
    ("mine.yaml", "seed: 3\n", "--config-name mine", "defaults: [config, _self_]"),
    ("mine.yaml", "", "--config-name mine", "defaults: [config, _self_]"),
    ("mine.yaml", "defaults: [config, _self_]\n", "--config-name mien", "did you mean --config-name mine?"),
    ("mine.yaml", "defaults: [config, _self_]\n", "--config-name ../own/mine", "is no name; --config-dir DIR names"),
    ("mine.yaml", "defaults: [confg]\n", "--config-name mine", "Could not load 'confg'"),
]


@pytest.mark.parametrize(("path", "text", "words", "message"), BAD_FILES)
def test_mistakes_in_files_of_the_user_are_explained(path, text, words, message, command):
    write_own(path, text)
    result = command("--config-dir", "own", *words.split(" "))
    assert_refused(result, 2, message)
    assert not Path("outputs").exists()


def test_mark_of_windows_editors_hides_no_header(command):
    write_own("experiment/mine.yaml", b"\xef\xbb\xbf# @package _global_\r\nseed: 7\r\n")
    result = command("--config-dir", "own", "experiment=mine", "--cfg", "job")
    assert result.code == 0, result.errors
    assert "\nseed: 7\n" in result.out


def test_file_that_is_much_too_large_is_not_read(command):
    write_own("experiment/mine.yaml", GLOBAL)
    with open("own/experiment/mine.yaml", "r+b") as file:
        file.truncate(50_000_000)
    assert_refused(command("--config-dir", "own", "experiment=mine"), 2, f"{MINE} is larger than 100 kB")


def test_file_that_cannot_be_read_is_told_of(command):
    import os

    write_own("experiment/mine.yaml", GLOBAL)
    os.chmod("own/experiment/mine.yaml", 0)
    if os.access("own/experiment/mine.yaml", os.R_OK):
        pytest.skip("this user may read every file")
    assert_refused(command("--config-dir", "own", "experiment=mine"), 2, f"{MINE} cannot be read: Permission denied")


def test_problems_say_where_a_value_stands_and_show_typed_ones_as_typed(command):
    """Files, experiments and defaults of several kinds, in one command."""
    write_own("experiment/mine.yaml", f"{GLOBAL}defaults: [/experiment/spiral]\ntrainer:\n  ema: 2\n")
    result = command("--config-dir", "own", "experiment=mine", "optimizer.lr=-1", "trainer.early_stopping.patience=2")
    assert result.errors == [
        "error: trainer.ema=2 (own/experiment/mine.yaml, line 4): must be a number from 0 to less than 1 or null",
        "  optimizer.lr=-1: must be a number > 0",
        "  trainer.early_stopping.patience needs validation images: data.val_fraction is 0"
        " (data.val_fraction: experiment=spiral)",
    ]


def test_values_that_are_hardly_meant_are_warned_of_and_run(command):
    result = command("experiment=smoke", "model=linear", "trainer.checkpoint.every_minutes=99999")
    assert result.code == 0, result.errors
    assert result.out.count("warning: ") == 1
    assert "warning: trainer.checkpoint.every_minutes=99999: a run that is killed loses more than a week" in result.out


# ------------------------------------------------------------------------------------------------- data and outputs


def test_data_that_are_nowhere_end_with_3(command):
    Path("empty").mkdir()
    for words, message in {
        "data=cifar10 data.download=false": "cifar-10-python.tar.gz (170.5 MB) is not in",
        "data=mnist data.download=false": "and was not downloaded: data.download=false",
        "data=image_folder data.root=/no/where": "data.root does not exist: /no/where",
        f"data=image_folder data.root={__file__}": "data.root is a file, not a folder",
        "data=image_folder data.root=empty": "no class folders to train on",
    }.items():
        assert_refused(command(*words.split(" ")), 3, message)


def test_download_without_network_ends_with_3(command):
    # Nothing listens on port 9 of this machine, with and without a network.
    result = command("data=cifar10", "data.mirror=https://127.0.0.1:9")
    assert_refused(result, 3, "cifar-10-python.tar.gz (170.5 MB) is not in")


def test_class_of_test_that_train_lacks_ends_with_3(command, write_images):
    write_images(Path("tree"), {"train/cat": 4, "train/dog": 4, "test/cat": 2, "test/emu": 2})
    assert_refused(command("data=image_folder", "data.root=tree"), 3, "classes that train/ lacks: emu")


def test_class_that_test_lacks_and_few_images_are_warned_of(command, write_images):
    write_images(Path("tree"), {"train/cat": 4, "train/dog": 4, "test/cat": 2})
    result = command("data=image_folder", "data.root=tree", "trainer.steps=1", "model=linear", "data.cache_dir=cache")
    assert result.code == 0, result.errors
    assert "warning: no test images of 1 of 2 classes: dog" in result.out
    assert "training images are fewer than trainer.batch_size=128: each step takes all" in result.out


def test_image_folder_too_small_for_the_model_leaves_no_folder(command, write_images):
    write_images(Path("tree"), {"train/cat": 4, "train/dog": 4, "test/cat": 2, "test/dog": 2}, size=12)
    result = command("data=image_folder", "data.root=tree", "model=conv_pool", "data.cache_dir=cache")
    assert_refused(result, 2, "conv_pool needs images of at least 32 px; these have 12 px")
    assert not Path("outputs").exists()


def test_output_folder_that_cannot_be_made_ends_with_4(command):
    Path("file").write_text("")
    for folder in ("/proc/no", "file", "file/below"):
        result = command("experiment=smoke", f"output_dir={folder}")
        assert_refused(result, 4, f"cannot write to the output folder {folder}/train")


@pytest.mark.parametrize("task", ["evaluate", "predict"])
def test_wrong_checkpoints_end_with_4(task, command):
    Path("page.ckpt").write_text("<!DOCTYPE html><html>404</html>")
    Path("folder").mkdir()
    for checkpoint, message in {
        "nowhere": "checkpoint=nowhere: there is no such file or folder",
        "page.ckpt": "page.ckpt is not a checkpoint of cvtrain: it is a web page",
        "folder": "checkpoint=folder: the folder holds no checkpoint",
    }.items():
        words = [f"checkpoint={checkpoint}"] + (["input=page.ckpt"] if task == "predict" else [])
        assert_refused(command(f"task={task}", *words), 4, message)
    for run in ("nowhere", "folder"):
        assert_refused(command(f"resume={run}"), 4, f"{run} holds no run: there is no")


def test_trained_run_refuses_what_contradicts_it(command):
    made = command("experiment=smoke", "model=linear", "output_dir=out")
    assert made.code == 0, made.errors
    (run,) = Path("out/train/digits-linear").iterdir()
    Path("picture.png").write_text("no picture")
    for words, code, message in (
        (f"task=evaluate checkpoint={run} model=vgg16", 2, "model=vgg16: the checkpoint was trained with model=linear"),
        (f"task=evaluate checkpoint={run} split=tset", 2, "split=tset: must be train | val | test"),
        (f"task=evaluate checkpoint={run} data=synthetic", 3, "the images have other classes than the model"),
        (f"task=predict checkpoint={run} input=nothing", 3, "input=nothing: there is no such file"),
        (f"task=predict checkpoint={run} input=picture.png", 3, "none of 1 files can be read"),
        (f"resume={run} model=vgg16", 2, "model=vgg16: this run was made with model=linear; start a new run"),
        (f"resume={run} optimizer.lr=3", 2, "optimizer.lr=3: this run was made with optimizer.lr=0.05"),
        (f"resume={run} trainer.epoch=3", 2, "unknown key trainer.epoch: did you mean trainer.epochs?"),
    ):
        assert_refused(command(*words.split(" ")), code, message)
