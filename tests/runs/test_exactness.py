"""The bits of a run: the same after a stop, for any number of workers, and with code of the user's that draws."""

import copy
import os
import random
from contextlib import contextmanager
from itertools import combinations

import numpy as np
import pytest
import torch
from torch import nn

from cvtrain.engine.checkpoint import list_checkpoints, load_newest, save_checkpoint
from cvtrain.engine.determinism import determinism_problem, first_difference
from cvtrain.engine.device import Compute, set_determinism
from cvtrain.engine.trainer import Trainer
from cvtrain.losses import CrossEntropy
from cvtrain.schedulers import Constant
from tests.faults.exactness import COMPUTED, FACTORS, all_pairs, broken_pieces, write_images

ROWS = all_pairs(FACTORS, apart=COMPUTED)


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("exact") / "images")


def test_every_value_meets_every_other_value():
    met = {frozenset(pair) for row in ROWS for pair in combinations(row.items(), 2)}
    for (name, values), (other_name, others) in combinations(FACTORS.items(), 2):
        if not {name, other_name} <= set(COMPUTED):
            assert {frozenset([(name, a), (other_name, b)]) for a in values for b in others} <= met, (name, other_name)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more workers than this machine has cores
@pytest.mark.parametrize(
    "row",
    [pytest.param(row, marks=[pytest.mark.long] if number % 8 else []) for number, row in enumerate(ROWS)],
    ids=lambda row: "-".join(row[name] for name in (*COMPUTED[:4], "moment")),
)
def test_stopped_run_ends_like_uninterrupted_run(row, tree, tmp_path):
    assert broken_pieces(row, tree, tmp_path) == [], row


# ------------------------------------------------------------------------------------------------ loss scaling


class NoiseInputs:
    """Batches that depend on their number alone."""

    def __len__(self):
        return 4

    def epoch(self, epoch, *, start=0):
        from cvtrain.data.inputs import Inputs

        for number in range(start, 4):
            generator = torch.Generator().manual_seed(4 * epoch + number)
            images = torch.randn(8, 3, 8, 8, generator=generator)
            yield Inputs(images, torch.randint(2, (8,), generator=generator))


def half_precision_trainer():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 16), nn.ReLU(), nn.Linear(16, 2))
    return Trainer(
        model,
        CrossEntropy(num_classes=2, class_counts=[4, 4]),
        optimizer=torch.optim.AdamW(model.parameters(), lr=0.01),
        schedule=Constant(total_steps=12, steps_per_epoch=4),
        inputs=NoiseInputs(),
        evaluate_fn=None,
        compute=Compute(torch.device("cpu"), "fp16", channels_last=False),
        total_steps=12,
        seed=0,
        evaluate_every=4,
    )


def test_loss_scale_of_fp16_goes_on_where_it_was():
    whole = half_precision_trainer()
    before = whole.state_dict()["scaler"]["scale"]
    states = [copy.deepcopy(whole.state_dict()) for _ in whole.run()]
    for saved in states[3::4]:
        resumed = half_precision_trainer()
        resumed.load_state_dict(copy.deepcopy(saved))
        for _ in resumed.run():
            pass
        for name in ("model", "optimizer", "scaler"):
            assert first_difference(whole.state_dict()[name], resumed.state_dict()[name]) is None, name
    changed = copy.deepcopy(states[3])
    changed["scaler"]["scale"] = before / 4
    resumed.load_state_dict(changed)
    assert resumed.state_dict()["scaler"]["scale"] == before / 4


# ------------------------------------------------------------------------------------------------ code of users

DRAWING = '''
import random
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from cvtrain.data.augment import Augment
from cvtrain.data.folder import load_image_folder


def noise():
    return random.random() + float(np.random.rand()) + torch.rand((), device="cpu").item()


@dataclass(frozen=True)
class Noisy(Augment):
    def __call__(self, images, draws):
        return (images.float() + 20 * noise()).clamp(0, 255).to(torch.uint8)


class NoisyModel(nn.Module):
    def __init__(self, *, num_classes, in_channels, image_size):
        super().__init__()
        self.linear = nn.Linear(in_channels * image_size**2, num_classes)
        self.linear.bias.data += noise()

    def forward(self, images):
        return self.linear(images.flatten(1) * noise())


class MovingLoss(nn.Module):
    """Keeps a mean over steps, as centre losses do, and is made with a number that is drawn."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(()))
        self.offset = noise()

    def forward(self, logits, labels):
        losses = nn.functional.cross_entropy(logits, labels, reduction="none")
        if self.training:
            self.mean += 0.1 * (losses.mean().detach() - self.mean)
        return losses * (1 + self.mean + self.offset) * noise()


@dataclass(frozen=True)
class NoisyImages:
    images: object

    @property
    def shape(self):
        return self.images.shape

    def read(self, indices):
        return (self.images.read(indices).float() + 20 * noise()).clamp(0, 255).to(torch.uint8)


def noisy_folder(*, root, loader="files", num_workers=0):
    data = load_image_folder(root=root, loader="files", num_workers=num_workers)
    noisy = {name: replace(part, images=NoisyImages(part.images)) for name, part in
             (("train", data.train), ("test", data.test))}
    return replace(data, **noisy)
'''


@pytest.fixture
def foreign(tree, tmp_path, server, only_run, end_of):
    """Trains in steps of so many, as `foreign(name, (steps, workers), ...)`, and tells the end."""
    configs = tmp_path / "configs"
    for group, text in {
        "data": "_target_: drawing.noisy_folder\nroot: null\nloader: files\nnum_workers: 0\n"
        "val_fraction: 0.25\nmax_per_class: null\n",
        "model": "_target_: drawing.NoisyModel\n",
        "loss": "_target_: drawing.MovingLoss\n",
    }.items():
        (configs / group).mkdir(parents=True)
        (configs / group / "drawing.yaml").write_text(text)

    def train(name, *parts):
        cwd = tmp_path / name
        cwd.mkdir()
        (cwd / "drawing.py").write_text(DRAWING)
        start = [f"--config-dir={configs}", "data=drawing", "model=drawing", "loss=drawing", "plugins=[drawing]"]
        start += [f"data.root={tree}", "augment._target_=drawing.Noisy", "trainer.batch_size=4", "output_dir=out"]
        start += ["trainer.evaluate_every=4", "optimizer=momentum", "optimizer.lr=0.001", "scheduler=constant"]
        for steps, workers in parts:
            run = only_run(cwd)
            begin = [f"resume={run}", "plugins=[drawing]"] if run else start
            ended = server([*begin, f"data.num_workers={workers}", f"trainer.steps={steps}"], cwd=cwd)
            assert ended.code == 0, ended.stderr
        end = end_of(only_run(cwd))
        return {key: end[key] for key in ("model", "loss", "optimizer", "predictions.csv")}

    return train


def test_code_of_users_draws_the_same_after_a_stop_and_for_any_number_of_workers(foreign):
    expected = foreign("whole", (12, 0))
    assert foreign("two", (12, 2)) == expected
    assert foreign("stopped", (4, 1), (8, 0), (12, 2)) == expected


# ------------------------------------------------------------------------------------------------ other machines


@pytest.fixture
def seven(server, words, only_run, tmp_path):
    """Makes a run of 7 steps: `seven(*words)` gives it, and how to continue it."""

    def made(*more):
        assert server(words("trainer.ema=null", *more, steps=7), cwd=tmp_path).code == 0
        run = only_run(tmp_path)
        return run, lambda *typed: server([f"resume={run}", "trainer.steps=9", *typed], cwd=tmp_path)

    return made


def of_another_machine(run):
    """Makes the newest checkpoint one that another torch has written with other threads."""
    checkpoint = load_newest(run / "checkpoints")
    checkpoint.state["circumstances"] |= {"torch": "9.9.0", "threads": "64"}
    checkpoint.path.unlink()
    ours = save_checkpoint(run / "checkpoints", checkpoint.state, step=7)
    for other in list_checkpoints(run / "checkpoints", "step"):  # of two with one step the checksums decide
        if other.path != ours.path:
            other.path.unlink()


def test_other_torch_and_other_threads_are_told_in_one_warning(seven, read_card):
    run, resume = seven()
    assert "last bits may differ" not in resume("trainer.steps=8").stdout
    of_another_machine(run)
    ended = resume()
    assert ended.code == 0, ended.stderr
    said = " ".join((ended.stdout + ended.stderr).split())  # it may be wrapped
    assert said.count("last bits may differ") == 1, said
    assert f"torch {torch.__version__} instead of 9.9.0, threads 1 instead of 64" in said
    assert any("instead of 9.9.0" in warning for warning in read_card(run)["warnings"])


def test_deterministic_run_is_not_continued_with_other_bits_unless_told_to(seven):
    run, resume = seven("trainer.deterministic=true")
    of_another_machine(run)
    ended = resume()
    assert ended.code == 2
    assert "torch" in ended.stderr
    assert "instead of 9.9.0" in ended.stderr
    assert "trainer.deterministic=false" in ended.stderr
    assert resume("trainer.deterministic=false").code == 0


def test_times_of_files_and_a_clock_that_went_back_decide_nothing(seven):
    run, resume = seven("trainer.checkpoint.keep=3")
    assert resume().code == 0
    for age, file in enumerate(list_checkpoints(run / "checkpoints", "step")):
        os.utime(file.path, (10**9 - age, 10**9 - age))
    assert "goes on after step 9 of 11" in resume("trainer.steps=11").stdout


# ------------------------------------------------------------------------------------------------ other data


@pytest.fixture
def photographs(tree, tmp_path, server, only_run, words):
    """A run of a copy of the images, and how to continue it."""
    import shutil

    root = tmp_path / "photographs"
    shutil.copytree(tree, root)
    data = ["data=image_folder", f"data.root={root}", f"data.cache_dir={tmp_path / 'cache'}", "data.val_fraction=0.25"]
    rest = [word for word in words(steps=4, every=4) if not word.startswith("data")]
    assert server([*data, *rest, "model.widths=[4,8]"], cwd=tmp_path).code == 0
    run = only_run(tmp_path)
    return root / "train", run, lambda: server([f"resume={run}", "trainer.steps=6"], cwd=tmp_path)


def add(train):
    (train / "a" / "new.png").write_bytes((train / "b" / "000.png").read_bytes())


def remove(train):
    for name in ("003", "004", "005", "006"):
        (train / "a" / f"{name}.png").unlink()


def relabel(train):
    (train / "a" / "002.png").rename(train / "b" / "0020.png")


def change(train):
    (train / "b" / "001.png").write_bytes((train / "b" / "001.png").read_bytes() + b"more")


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (add, "1 file added (train/a/new.png)"),
        (remove, "4 files removed (train/a/003.png, train/a/004.png, train/a/005.png, ...)"),
        (relabel, "1 file added (train/b/0020.png); 1 file removed (train/a/002.png)"),
        (change, "1 file of another size (train/b/001.png)"),
    ],
)
def test_changed_data_are_refused_with_the_files(edit, told, photographs):
    train, run, resume = photographs
    before = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file() and path.name != ".lock"}
    edit(train)
    ended = resume()
    assert ended.code == 4, ended.stderr
    assert told in ended.stderr.replace("\n", " ")
    assert {p.name: p.read_bytes() for p in run.iterdir() if p.is_file() and p.name != ".lock"} == before


def test_file_written_anew_at_the_same_size_is_told_and_a_copy_of_all_is_not(photographs):
    train, _, resume = photographs
    os.utime(train / "b" / "001.png", (1, 1))
    told = resume().stdout
    assert "1 file written (train/b/001.png) since this run was started" in " ".join(told.split())
    for path in train.parent.rglob("*.png"):
        os.utime(path, (2, 2))


# ------------------------------------------------------------------------------------------------ determinism

ODD = """
import numpy as np
import torch
from torch import nn


class Unpooling(nn.Module):
    def __init__(self, *, num_classes, in_channels, image_size):
        super().__init__()
        self.pool, self.unpool = nn.MaxPool2d(2, return_indices=True), nn.MaxUnpool2d(2)
        self.linear = nn.Linear(in_channels, num_classes)

    def forward(self, images):
        return self.linear(self.unpool(*self.pool(images)).mean((2, 3)))


class InEvaluationOnly(Unpooling):
    def forward(self, images):
        return self.linear(images.mean((2, 3))) if self.training else super().forward(images)


class OwnGenerator(nn.Module):
    def __init__(self, *, num_classes, in_channels, image_size):
        super().__init__()
        self.linear, self.generator = nn.Linear(in_channels, num_classes), np.random.default_rng(0)

    def forward(self, images):
        return self.linear(images.mean((2, 3)) * self.generator.normal())
"""


@pytest.mark.parametrize("reads_data_first", [False, pytest.param(True, marks=pytest.mark.long)])
@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("Unpooling", "max_unpooling2d"),
        ("InEvaluationOnly", "max_unpooling2d"),
        ("OwnGenerator", "gave other numbers the second time (first of all model.linear"),
    ],
)
def test_what_cannot_be_deterministic_is_refused_at_the_start(name, told, reads_data_first, server, tree, tmp_path):
    (tmp_path / "odd.py").write_text(ODD)
    data = [f"data.root={tree}", f"data.cache_dir={tmp_path}"] if reads_data_first else []
    kind = "data=image_folder" if reads_data_first else "data=digits"
    typed = [kind, *data]
    typed += ["model=linear", f"model._target_=odd.{name}", "plugins=[odd]", "trainer.steps=2", "output_dir=out"]
    refused = server([*typed, "trainer=deterministic", "trainer.steps=2"], cwd=tmp_path)
    assert refused.code == 2, refused.stderr
    assert told in refused.stderr
    assert "trainer.deterministic=false" in refused.stderr
    assert len(refused.stderr.splitlines()) <= 6
    assert not list(tmp_path.glob("out/train/*/*"))
    assert server(typed, cwd=tmp_path).code == 0, "it is refused only where the same bits are asked for"


def test_deterministic_run_has_the_bits_of_any_other_on_a_cpu(server, words, only_run, end_of, tmp_path):
    ends = []
    for flag in ("false", "true"):
        assert server(words(f"trainer.deterministic={flag}", steps=8), cwd=tmp_path / flag).code == 0
        ends.append(end_of(only_run(tmp_path / flag)))
    assert ends[0] == ends[1]


@contextmanager
def environment(**variables):
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)


def test_workspace_that_is_not_deterministic_is_refused_and_an_unset_one_is_set():
    cuda = torch.device("cuda")
    with environment(CUBLAS_WORKSPACE_CONFIG=":0:0"):
        assert ":0:0" in determinism_problem(cuda)
        assert determinism_problem(torch.device("cpu")) is None
    with environment(CUBLAS_WORKSPACE_CONFIG=":16:8"):
        assert determinism_problem(cuda) is None
    with environment(CUBLAS_WORKSPACE_CONFIG=""):
        del os.environ["CUBLAS_WORKSPACE_CONFIG"]
        try:
            set_determinism(True)
            assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
            assert determinism_problem(cuda) is None
            assert not torch.backends.cudnn.benchmark
        finally:
            set_determinism(False)
    assert "trainer.device=cpu" in determinism_problem(torch.device("mps"))


def test_generators_of_all_three_are_set_by_one_seed():
    from cvtrain.seeding import seed_generators

    def drawn():
        return random.random(), np.random.rand(), torch.rand(()).item()

    seed_generators(2**63 - 1, device_type="cpu")
    first = drawn()
    assert drawn() != first
    seed_generators(2**63 - 1)
    assert drawn() == first
