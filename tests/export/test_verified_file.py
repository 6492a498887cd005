import json

import pytest
import torch
from torch import nn

from cvtrain.config import config_dir
from cvtrain.errors import ConfigError, OutputError
from cvtrain.export.description import describe
from cvtrain.export.formats import FORMATS, METADATA_KEY, OPSET
from cvtrain.export.verified_file import compare, export_verified
from cvtrain.help import options_of
from tests.export.classifiers_for_tests import classifier_of, exported_of, some_inputs

HOSTILE = (
    "<script>alert(1)</script>",
    "a\nb\x1b[31m",
    "\udcff\udc80",
    '"};{',
    "ü 猫 🐈",
    "=1+1",
    "",
    " ",
    "x" * 1000,
    "\0",
)


def export(classifier, path, format_name, *, tolerance=1e-4, shift=0.0):
    pixels, inputs = some_inputs(classifier)
    exported = exported_of(classifier)
    return export_verified(
        exported,
        describe(exported, classifier.loss_fn, num_outputs=classifier.loss_fn.num_outputs),
        format_name=format_name,
        path=path,
        inputs=inputs,
        expected=classifier.probabilities(pixels) + shift,
        tolerance=tolerance,
    )


@pytest.fixture(scope="module")
def linear():
    return classifier_of("model=linear", "data=digits", class_names=HOSTILE)


def embedded(path, format_name):
    """The description inside a file, read by the libraries alone."""
    if format_name == "onnx":
        onnxruntime = pytest.importorskip("onnxruntime")
        return onnxruntime.InferenceSession(path).get_modelmeta().custom_metadata_map[METADATA_KEY]
    if format_name == "torch_export":
        extra = {f"{METADATA_KEY}.json": ""}
        torch.export.load(path, extra_files=extra)
        return extra[f"{METADATA_KEY}.json"]
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        return file.metadata()[METADATA_KEY]


@pytest.mark.parametrize("format_name", FORMATS)
def test_hostile_class_names_and_nothing_of_this_machine_are_in_the_file(linear, tmp_path, format_name):
    skip_without_packages(format_name)
    path = tmp_path / f"model{FORMATS[format_name].suffix}"
    result = export(linear, path, format_name)
    description = json.loads(embedded(path, format_name))
    assert tuple(description["class_names"]) == HOSTILE
    beside = json.loads(result.description_path.read_text(encoding="ascii"))
    assert beside["class_names"] == description["class_names"]
    assert beside["check"]["batch_sizes"] == [1, 4, 7, 8]
    assert sorted(each.name for each in tmp_path.iterdir()) == [path.name, f"{path.name}.json"]
    assert not result.is_replacing
    content = path.read_bytes()
    assert len(content) == result.num_bytes == beside["file"]["num_bytes"]
    assert str(config_dir().parent).encode() not in content, "stack traces hold names of folders"
    assert b'File "' not in content
    if format_name == "onnx":
        assert b"cvtrain.export" not in content, "other programs need not know what our classes are called"
        (opset,) = pytest.importorskip("onnx").load(path).opset_import
        assert (opset.domain, opset.version) == ("", OPSET)
        assert beside["file"]["holds"] == f"graph and weights, opset {OPSET}"


def skip_without_packages(format_name):
    if missing := FORMATS[format_name].missing_packages():
        pytest.skip(f"{', '.join(missing)} is not installed")


@pytest.mark.parametrize(
    "words",
    [
        ["model=conv_pool", "data=digits"],
        ["model=resnet18", "model.width=8", "data=synthetic", "data.permute_pixels=1"],
        ["model=mlp", "data=spiral"],
    ],
    ids=lambda words: words[0],
)
def test_onnx_answers_as_the_classifier_does_at_every_batch_size(tmp_path, words):
    skip_without_packages("onnx")
    check = export(classifier_of(*words), tmp_path / "model.onnx", "onnx").check
    assert check.max_difference < 1e-5
    assert check.num_same_class == check.num_inputs == 20
    assert check.batch_sizes == (1, 4, 7, 8)


@pytest.mark.long
@pytest.mark.parametrize("format_name", ["onnx", "torch_export"])
@pytest.mark.parametrize("name", options_of("model", config_dir()))
def test_every_model_can_be_exported(tmp_path, name, format_name):
    skip_without_packages(format_name)
    if name == "timm":
        pytest.importorskip("timm")
    classifier = classifier_of(f"model={name}", "data=synthetic", "data.image_size=64")
    check = export(classifier, tmp_path / "model.pt2", format_name).check
    assert check.num_same_class == check.num_inputs


@pytest.mark.long
@pytest.mark.parametrize("loss", options_of("loss", config_dir()))
def test_every_loss_can_be_exported(tmp_path, loss):
    skip_without_packages("onnx")
    classifier = classifier_of("model=lenet", f"loss={loss}", "data=synthetic", "data.num_classes=2")
    assert export(classifier, tmp_path / "model.onnx", "onnx").check.max_difference < 1e-5


# ------------------------------------------------------------------------------------------------ what is not kept


@pytest.mark.parametrize("shift", [1e-3, float("nan")])
def test_file_that_answers_otherwise_is_not_kept_and_the_one_before_stays(linear, tmp_path, shift):
    path = tmp_path / "deep" / "model.safetensors"
    first = export(linear, path, "safetensors")
    before = path.read_bytes(), first.description_path.read_bytes()
    with pytest.raises(OutputError, match=r"model\.safetensors answers otherwise than the model") as caught:
        export(linear, path, "safetensors", shift=shift)
    assert "tolerance=" in caught.value.hint
    assert (path.read_bytes(), first.description_path.read_bytes()) == before
    assert len(list(path.parent.iterdir())) == 2
    assert export(linear, path, "safetensors", shift=1e-3, tolerance=2e-3).is_replacing


def test_model_that_float32_rounds_by_more_than_the_tolerance_is_named_as_such(tmp_path):
    class Cancelling(nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, images):
            return self.model(images) + 1e6 - 1e6

    classifier, path = classifier_of("model=linear", "data=digits"), tmp_path / "model.safetensors"
    with pytest.raises(OutputError) as caught:
        export(classifier, path, "safetensors", shift=1e-3)
    assert "float32 itself" not in caught.value.hint
    classifier.model = Cancelling(classifier.model).eval()
    with pytest.raises(OutputError) as caught:
        export(classifier, path, "safetensors", shift=1e-3)
    assert "20 of 20 classes are the same; float32 itself rounds this model by 0.00" in caught.value.hint


def test_difference_of_a_single_probability_counts():
    inputs, expected = torch.zeros(20, 3), torch.full((20, 2), 0.5)
    wrong = expected.clone()
    wrong[19, 1] = 0.75
    check = compare(lambda batch: expected[: len(batch)], inputs, wrong)
    assert check.max_difference == 0.25
    assert check.num_same_class == 19
    with pytest.raises(OutputError, match=r"gives \(20, 3\) numbers instead of \(20, 2\)"):
        compare(lambda batch: batch, inputs, expected)


def test_folder_that_cannot_be_made_is_an_output_error(linear, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="could not be written") as caught:
        export(linear, tmp_path / "file" / "model.safetensors", "safetensors")
    assert "output=" in caught.value.hint


def test_model_that_looks_at_its_numbers_has_no_graph_but_weights(linear, tmp_path):
    class Undecided(nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, images):
            return self.model(images) if images.sum() > 0 else self.model(-images)

    classifier = classifier_of("model=linear", "data=digits")
    classifier.model = Undecided(classifier.model).eval()
    with pytest.raises(ConfigError, match="format=torch_export cannot hold this model: ") as caught:
        export(classifier, tmp_path / "model.pt2", "torch_export")
    assert "format=safetensors" in caught.value.hint
    assert len(caught.value.lines()) <= 6
    assert list(tmp_path.iterdir()) == []
    assert export(classifier, tmp_path / "model.safetensors", "safetensors").check.num_same_class == 20


def test_onnx_file_of_more_than_two_gigabytes_is_refused_before_anything_is_computed(linear):
    skip_without_packages("onnx")
    exported = exported_of(linear)
    exported.model = nn.Linear(30_000, 30_000, device="meta")
    with pytest.raises(ConfigError, match=r"holds 2 GB in one file, and this model has 3\.6 GB"):
        FORMATS["onnx"].to_bytes(exported, "{}")
