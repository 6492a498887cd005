"""What is read of two sweeps, when they are no pair, and by what they are called."""

import functools
import json

import pytest

from cvtrain.compose import compose
from cvtrain.config import save_text
from cvtrain.errors import CheckpointError, ConfigError
from cvtrain.outputs import RunDir
from cvtrain.sample_size.pair import names_of, read_pair, read_sweep, setting_differences
from cvtrain.sample_size.table import Row, write_table

CLASSES = ("cat", "dog")
settings = functools.cache(lambda *words: compose(["task=sample_size_sweep", *words]))


def row_of(per_class, replicate, *, accuracy=0.8, split_hash=None):
    return Row(
        per_class=per_class,
        replicate=replicate,
        train_size=8 * per_class,
        val_size=2 * per_class,
        steps=100,
        best_step=90,
        stop_reason="finished",
        train_accuracy=0.9,
        val_accuracy=0.8,
        test_accuracy=accuracy,
        test_loss=0.5,
        seconds=1.0,
        split_hash=split_hash or f"split of {per_class}, {replicate}",
    )


ROWS = tuple(row_of(size, replicate) for size in (10, 20) for replicate in range(3))


@pytest.fixture
def write_sweep(tmp_path):
    """Writes the folder of a sweep as the task leaves it; gives its path."""

    def write(name, *words, rows=ROWS, num_runs=6, fingerprint="f", class_names=CLASSES, test_counts=(30, 20)):
        path = tmp_path / name
        path.mkdir()
        run_dir = RunDir(path)
        run_dir.write_text(run_dir.config_path, save_text(settings(*words)))
        run_dir.write_card(
            {"task": "sample_size_sweep", "num_runs": num_runs, "data_fingerprint": fingerprint}
            | {"class_names": class_names}
        )
        write_table(run_dir, rows)
        (path / "runs" / "n00010-r00").mkdir(parents=True)
        test = {"num_images": sum(test_counts), "per_class": [{"num_images": count} for count in test_counts]}
        (path / "runs" / "n00010-r01").mkdir()  # one that has not come to its end
        RunDir(path / "runs" / "n00010-r00").write_card({"test": test})
        return path

    return write


# ------------------------------------------------------------------------------------------------------ reading


def test_sweep_is_read_as_it_was_written(write_sweep):
    sweep = read_sweep(write_sweep("a", "model=mlp", num_runs=9))
    assert sweep.rows == ROWS
    assert (sweep.num_runs, sweep.data_fingerprint, sweep.class_names) == (9, "f", CLASSES)
    assert (sweep.num_test, sweep.chance_accuracy) == (50, 0.6)
    assert [(point.per_class, dict(point.accuracies)) for point in sweep.points] == [
        (10, {0: 0.8, 1: 0.8, 2: 0.8}),
        (20, {0: 0.8, 1: 0.8, 2: 0.8}),
    ]
    assert sweep.config["model"] == settings("model=mlp")["model"]


@pytest.mark.parametrize(
    ("runs", "found"), [(None, "none is named"), ([], "none is named"), (["a"], "1 are named"), ("abc", "3 are named")]
)
def test_other_than_two_folders_are_refused(runs, found):
    with pytest.raises(ConfigError, match=f"needs two sample-size sweeps, and {found}") as caught:
        read_pair(runs)
    assert "runs=[A,B]" in caught.value.hint


def test_what_is_no_sweep_is_refused_with_what_to_type(write_sweep, tmp_path):
    sweep = write_sweep("2026-01-02")
    (tmp_path / "empty").mkdir()
    other = RunDir(tmp_path / "empty")
    with pytest.raises(CheckpointError, match="there is no such folder"):
        read_sweep(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="is not the folder of a run") as caught:
        read_sweep(sweep.parent)
    assert caught.value.hint == f"{sweep} is one"
    with pytest.raises(CheckpointError, match="is not the folder of a run") as caught:
        read_sweep(other.path)
    assert "runs=[A,B]" in caught.value.hint
    other.write_text(other.config_path, save_text(compose([])))
    with pytest.raises(CheckpointError, match="holds a run of task=train, no sample-size sweep"):
        read_sweep(other.path)


def test_sweep_with_one_size_is_refused_with_how_to_continue(write_sweep):
    path = write_sweep("a", rows=ROWS[:3])
    with pytest.raises(CheckpointError, match=r"needs two sizes, and 3 of 6 trainings are done, of 1 size$") as caught:
        read_sweep(path)
    assert f"cvtrain resume={path}" in caught.value.hint
    (path / "sample_size.csv").unlink()
    with pytest.raises(CheckpointError, match=r"0 of 6 trainings are done, of 0 sizes$"):
        read_sweep(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", "column 'per_class' is missing"),
        ("per_class,replicate\nten,0\n", "invalid literal"),
        ("\0", "cannot be read"),
    ],
)
def test_damaged_table_is_told(write_sweep, text, message):
    path = write_sweep("a")
    (path / "sample_size.csv").write_text(text if text != "\0" else f"per_class\n{'x' * 200_000}\n")
    with pytest.raises(CheckpointError, match=message):
        read_sweep(path)


@pytest.mark.parametrize("accuracy", [float("nan"), 1.5])
def test_accuracies_that_are_none_are_refused(write_sweep, accuracy):
    with pytest.raises(CheckpointError, match=r"test accuracies outside of 0\.\.1"):
        read_sweep(write_sweep("a", rows=(*ROWS, row_of(30, 0, accuracy=accuracy))))


def test_missing_cards_are_told(write_sweep):
    path = write_sweep("a")
    card = json.loads((path / "run.json").read_text())
    (path / "run.json").write_text(json.dumps({**card, "class_names": None}))
    with pytest.raises(CheckpointError, match="is incomplete"):
        read_sweep(path)
    (path / "run.json").write_text(json.dumps(card))
    assert read_sweep(path).num_test == 50
    (path / "runs" / "n00010-r00" / "run.json").unlink()
    with pytest.raises(CheckpointError, match="is incomplete") as caught:
        read_sweep(path)
    assert f"cvtrain resume={path}" in caught.value.hint


# ----------------------------------------------------------------------------------------------------- checking


def test_pair_may_differ_in_model_sizes_and_replicates(write_sweep):
    more = (*ROWS, row_of(40, 0), row_of(10, 3))
    a, b = read_pair([str(write_sweep("a", "model=mlp")), str(write_sweep("b", "model=linear", rows=more))])
    assert (len(a.rows), len(b.rows)) == (6, 8)


def test_one_folder_twice_is_refused_however_it_is_written(write_sweep, tmp_path):
    path = write_sweep("a")
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(ConfigError, match="not compared with itself"):
        read_pair([str(path), f"{tmp_path}/link/../a/"])
    with pytest.raises(ConfigError, match="not compared with itself"):
        read_pair([str(path), str(tmp_path / "link")])


@pytest.mark.parametrize(
    ("words", "facts", "message"),
    [
        (
            ("data.image_size=16",),
            {"fingerprint": "g"},
            r"different images \(data.image_size=32 and data.image_size=16\)",
        ),
        (("data=spiral",), {"fingerprint": "g"}, r"different images \(data=digits and data=spiral\)"),
        ((), {"fingerprint": "g"}, "different images: the files have changed"),
        ((), {"class_names": ("dog", "cat")}, "different images"),
        (
            ("data.max_per_class=9",),
            {"test_counts": (9, 9)},
            r"tested on different images, 50 and 18 \(data.max_per_class=null and data.max_per_class=9\)",
        ),
        ((), {"test_counts": (20, 30)}, "tested on different images, 50 and 50$"),
        ((), {"rows": (row_of(30, 0), row_of(40, 0))}, r"no training in common: sizes \[10,20\] and \[30,40\]"),
    ],
)
def test_sweeps_on_other_images_are_refused(write_sweep, words, facts, message):
    with pytest.raises(ConfigError, match=message) as caught:
        read_pair([str(write_sweep("a")), str(write_sweep("b", *words, **facts))])
    assert caught.value.hint


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        (("seed=1",), r"seed=0 and seed=1\)", "again with seed=0"),
        (
            ("data.val_fraction=0.5", "seed=1"),
            r"\(seed=0 and seed=1, data.val_fraction=0.2 and data.val_fraction=0.5\)",
            "again with seed=0 data.val_fraction=0.2",
        ),
        (
            ("data.max_per_class=90",),
            r"\(data.max_per_class=null and data.max_per_class=90\)",
            "data.max_per_class=null",
        ),
        (("model=mlp",), "though their settings agree", "the settings of the other"),
    ],
)
def test_trainings_on_other_subsets_are_refused_with_the_setting_that_made_them(write_sweep, words, message, hint):
    others = (*ROWS[:-1], row_of(20, 2, split_hash="of other images"))
    with pytest.raises(ConfigError, match=f"no pairs: they were given different images .?{message}") as caught:
        read_pair([str(write_sweep("a")), str(write_sweep("b", *words, rows=others))])
    assert hint in caught.value.hint
    assert caught.value.exit_code == 2


# ------------------------------------------------------------------------------------------------------- naming


@pytest.mark.parametrize(
    ("a", "b", "names"),
    [
        (("model=lenet",), ("model=conv_pool",), ("lenet", "conv_pool")),
        (("model=torchvision", "model.name=vgg11"), ("model=timm", "model.name=vit_tiny"), ("vgg11", "vit_tiny")),
        (("optimizer=sgd",), ("optimizer=adam", "optimizer.lr=0.1"), ("sgd", "adam")),
        (("loss=mse",), ("loss=focal", "augment=flip"), ("none", "flip")),
        (("protocol=posts",), ("loss=focal",), ("posts", "robust")),
        ((), ("optimizer.lr=0.1",), ("lr=0.05", "lr=0.1")),
        ((), ("trainer.steps=10",), ("steps=null", "steps=10")),
        ((), ("data.permute_pixels=3",), ("permute_pixels=null", "permute_pixels=3")),
        (("model=mlp",), ("model=mlp", "model.hidden=[1000,1000,1000,1000]"), ("A", "B")),
        ((), (), ("A", "B")),
    ],
)
def test_names_are_what_differs_first(a, b, names):
    assert names_of(setting_differences(settings(*a), settings(*b))) == names


def test_all_that_differs_is_listed_options_first():
    a = settings("optimizer.lr=0.1", "budget.min_steps=5")
    b = settings("model=mlp", "augment=flip", "budget.min_steps=7")
    found = [(each.key, each.a, each.b, each.is_choice) for each in setting_differences(a, b)]
    assert found == [
        ("model", "lenet", "mlp", True),
        ("augment", "none", "flip", True),
        ("optimizer.lr", "0.1", "0.05", False),
        ("budget.min_steps", "5", "7", False),
    ]


@pytest.mark.parametrize(
    "words",
    [
        ("sizes=[10,20]", "replicates=2", "target=0.9", "elbow=0.1", "validate=true", "keep_models=true"),
        ("trainer.device=cpu", "trainer.eval_batch_size=7", "sweep.jobs=1", "name=again", "output_dir=elsewhere"),
    ],
)
def test_what_changes_no_accuracy_is_no_difference(words):
    assert setting_differences(settings(), settings(*words)) == ()


def test_budget_makes_no_difference_to_a_protocol_that_has_none():
    a, b = settings("protocol=posts"), settings("protocol=posts")
    b = {**b, "budget": {**b["budget"], "min_steps": 7}}
    assert setting_differences(a, b) == ()
    assert [each.key for each in setting_differences({**a, "protocol": "robust"}, {**b, "protocol": "robust"})] == [
        "budget.min_steps"
    ]
