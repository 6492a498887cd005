import hashlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import cvtrain
from cvtrain.classifier import from_state
from cvtrain.cli import dispatch
from cvtrain.data.digits import load_digits
from cvtrain.ending import exit_code_of
from cvtrain.engine.checkpoint import read_checkpoint
from cvtrain.export.formats import FORMATS
from cvtrain.finding import find_checkpoint

DOCS = Path(__file__).parents[2] / "docs" / "export.md"


def train(root, *words):
    words = ["trainer=smoke", "trainer.device=cpu", *words, f"output_dir={root}"]
    assert exit_code_of(lambda: dispatch(words)) == 0
    return max(root.glob("train/*/*"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A LeNet on the digits, in float32 on every machine, with averaged weights."""
    words = ["model=lenet", "trainer.precision=fp32", "trainer.ema=0.5"]
    return train(tmp_path_factory.mktemp("runs"), *words)


@pytest.fixture
def run(trained, tmp_path):
    """A copy of that run."""
    return shutil.copytree(trained, tmp_path / "run")


def checked(path):
    return json.loads(Path(f"{path}.json").read_text())


def test_all_formats_are_written_into_the_run_and_checked_on_its_test_images(command, run):
    missing = [package for each in FORMATS.values() for package in each.missing_packages()]
    if missing:
        pytest.skip(f"{', '.join(missing)} is not installed")
    result = command("task=export", f"checkpoint={run}", "format=[onnx,torch_export,safetensors]")
    assert result.code == 0, result.errors
    assert "input        images: float32 (N, 1, 32, 32), 0..1, grey" in result.out
    assert "output       probabilities: float32 (N, 10)" in result.out
    assert result.out.count("64 of 64 classes the same") == 3
    assert "warning" not in result.out
    best = next((run / "checkpoints").glob("best-*"))
    for name in ("model.onnx", "model.pt2", "model.safetensors"):
        path = run / "exports" / name
        assert str(path) in result.out
        about = checked(path)
        assert about["checked_with"] == "64 test images"
        assert about["check"]["max_difference"] <= 1e-5
        assert about["check"]["batch_sizes"] == [1, 4, 7, 52]
        assert about["file"]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        assert about["made_from"]["checkpoint_sha256"] == hashlib.sha256(best.read_bytes()).hexdigest()
        assert about["made_from"]["checkpoint"] == best.name
        assert about["class_names"] == list("0123456789")
    assert len(list((run / "exports").iterdir())) == 6
    follow_the_docs(run)


def follow_the_docs(run):
    """Runs every snippet of the docs where cvtrain cannot be imported; all name the class that cvtrain names."""
    exports = run / "exports"
    digit = load_digits().test.images.pixels[3].numpy().repeat(3, axis=2)
    Image.fromarray(digit).resize((90, 71)).save(exports / "photo.jpg", quality=95)
    snippets = re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    assert len(snippets) == 3
    program = "\n".join(["import sys", "sys.modules['cvtrain'] = None", *snippets])
    done = subprocess.run([sys.executable, "-c", program], cwd=exports, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    expected = cvtrain.load(run, device="cpu").predict(exports / "photo.jpg")[0]
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [name for name, _ in lines] == [expected.class_name] * 3
    for _, probability in lines:
        assert float(probability) == pytest.approx(expected.probability, abs=1e-5)


def test_weights_are_those_that_cvtrain_loads(command, run):
    assert command("task=export", f"checkpoint={run}", "format=safetensors", "output=here").code == 0
    expected = cvtrain.load(run, device="cpu").model.state_dict()
    found = load_file("here/model.safetensors")
    assert list(found) == sorted(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    raw = torch.load(next((run / "checkpoints").glob("best-*")), weights_only=True)["trainer"]["model"]
    assert not torch.equal(raw["head.weight"], found["head.weight"]), "averaged weights are exported, not the last"


def test_file_that_answers_otherwise_is_an_error_and_the_one_before_stays(command, run):
    words = ["task=export", f"checkpoint={run}", "format=torch_export"]
    assert command(*words).code == 0
    before = {path: path.read_bytes() for path in (run / "exports").iterdir()}
    result = command(*words, "tolerance=0")
    assert result.code == 4
    assert "model.pt2 answers otherwise than the model" in result.errors[0]
    assert {path: path.read_bytes() for path in (run / "exports").iterdir()} == before
    result = command(*words, "tolerance=0", "output=new")
    assert result.code == 4
    assert list(Path("new").iterdir()) == []
    result = command(*words)
    assert result.code == 0
    assert "replaces the one before" in result.out


def test_lone_checkpoint_is_exported_into_the_working_folder(command, run, tmp_path):
    shutil.copy(next((run / "checkpoints").glob("best-*")), tmp_path / "my.ckpt")
    assert command("task=export", "checkpoint=my.ckpt", "format=safetensors").code == 0
    assert (tmp_path / "exports" / "model.safetensors").is_file()
    assert command("task=export", "checkpoint=my.ckpt", "format=safetensors", "output=a/b.safetensors").code == 0
    assert (tmp_path / "a" / "b.safetensors.json").is_file()


def test_run_folder_that_cannot_be_written_is_an_output_error(command, run):
    (run / "exports").write_text("in the way")
    result = command("task=export", f"checkpoint={run}", "format=safetensors")
    assert result.code == 4
    assert "could not be written" in result.errors[0]
    assert "output=FOLDER" in result.errors[-1]


def test_images_that_are_gone_are_replaced_by_noise_and_that_is_said(command, tmp_path, write_images):
    counts = {"train/cat": 5, "train/dog": 5, "test/cat": 3, "test/dog": 3}
    root = write_images(tmp_path / "photos", counts, size=16)
    words = ["data=image_folder", f"data.root={root}", f"data.cache_dir={tmp_path / 'cache'}", "model=linear"]
    trained = train(tmp_path / "runs", *words, "trainer.batch_size=4")
    export = ["task=export", f"checkpoint={trained}", "format=torch_export"]
    result = command(*export)
    assert result.code == 0
    assert checked(trained / "exports" / "model.pt2")["checked_with"] == "6 test images"
    moved = root.rename(tmp_path / "moved")
    result = command(*export)
    assert result.code == 0
    assert "warning: the test images cannot be read (" in result.out
    assert checked(trained / "exports" / "model.pt2")["checked_with"] == "64 inputs of noise"
    result = command(*export, f"data.root={tmp_path / 'nowhere'}")
    assert result.code == 3, "images that were named must be there"
    assert command(*export, f"data.root={moved}").code == 0
    assert checked(trained / "exports" / "model.pt2")["checked_with"] == "6 test images"
    assert checked(trained / "exports" / "model.pt2")["class_names"] == ["cat", "dog"]
    (moved / "test" / "dog" / "2.png").write_bytes(b"no picture any more")
    result = command(*export, f"data.root={moved}")
    assert result.code == 3
    assert "2.png" in " ".join(result.errors)


def test_model_of_points_is_exported_in_float32_whatever_it_was_trained_in(command, tmp_path):
    words = ["data=spiral", "data.per_class=40", "model=mlp", "model.hidden=[8]", "trainer.precision=bf16"]
    trained = train(tmp_path / "runs", *words)
    result = command("task=export", f"checkpoint={trained}", "format=torch_export")
    assert result.code == 0
    assert "input        points: float32 (N, 2)\n" in result.out
    assert "precision    fp32; cvtrain itself answers in bf16, which differs by up to " in result.out
    about = checked(trained / "exports" / "model.pt2")
    assert about["checked_with"] == "64 test points"
    assert about["made_from"]["trained_in"] == "bf16"
    points = torch.tensor([[0.1, -0.7], [0.3, 0.2], [-0.9, 0.0]])
    found = torch.export.load(trained / "exports" / "model.pt2").module()(points)
    in_float32 = from_state(find_checkpoint(trained), device="cpu", precision="fp32")
    torch.testing.assert_close(found, in_float32.point_probabilities(points.numpy()))


def test_model_that_was_trained_in_fp16_on_a_gpu_is_loaded_and_exported_on_a_cpu(command, run, tmp_path):
    state = read_checkpoint(next((run / "checkpoints").glob("best-*")))
    state["precision"] = state["config"]["trainer"]["precision"] = "fp16"
    torch.save(state, tmp_path / "gpu.ckpt")
    assert cvtrain.load("gpu.ckpt", device="cpu").compute.precision in ("fp32", "bf16")
    result = command("task=export", "checkpoint=gpu.ckpt", "format=safetensors")
    assert result.code == 0, result.errors
    assert checked(tmp_path / "exports" / "model.safetensors")["made_from"]["trained_in"] == "fp16"


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ([], 2, "task=export needs a trained model: checkpoint=RUN"),
        (["checkpoint=nowhere"], 4, "nowhere"),
        (
            ["checkpoint={run}", "format=tflite"],
            2,
            "format=tflite: must be onnx | torch_export | safetensors or a list",
        ),
        (["checkpoint={run}", "format=[]"], 2, "format=[]: name a format at least"),
        (["checkpoint={run}", "tolerance=-1"], 2, "tolerance=-1: must be a number >= 0"),
        (["checkpoint={run}", "format=safetensors", "trainer.device=cpu"], 2, "trainer.device has no effect"),
        (["checkpoint={run}", "format=safetensors", "output=a.pt2"], 2, "format=safetensors writes .safetensors"),
        (["checkpoint={run}", "format=[safetensors,torch_export]", "output=a.pt2"], 2, "output=a.pt2"),
        (["checkpoint={run}", "model=mlp"], 2, "the checkpoint was trained with model=lenet"),
    ],
)
def test_mistakes_are_told_before_anything_is_written(trained, command, tmp_path, words, code, message):
    result = command("task=export", *(word.format(run=trained) for word in words))
    assert result.code == code
    assert message in result.errors[0]
    assert len(result.errors) <= 6
    assert not (trained / "exports").exists()
    assert list(tmp_path.iterdir()) == []


def test_missing_package_is_named_with_its_extra(trained, command, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    result = command("task=export", f"checkpoint={trained}", "format=[safetensors,onnx]")
    assert result.code == 2
    assert "format=onnx needs the package onnxscript, which is not installed" in result.errors[0]
    assert "pip install 'cvtrain[export]'" in result.errors[-1]
    assert not (trained / "exports").exists()
