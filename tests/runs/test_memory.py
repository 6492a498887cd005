"""Whole runs whose memory does not suffice: they go on in smaller parts, or end and say what to type."""

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

PLUGIN = """
import os
import torch
from torch import nn

class Limited(nn.Module):
    '''Has no room for steps of more than some images, nor for evaluations of more than some others.'''

    def __init__(self, num_classes, in_channels, image_size, room, eval_room):
        super().__init__()
        self.norm, self.drop = nn.BatchNorm2d(in_channels), nn.Dropout(0.3)
        self.layer = nn.Linear(in_channels * image_size * image_size, num_classes)
        self.room, self.eval_room = room, eval_room

    def forward(self, images):
        hidden = self.drop(self.norm(images).flatten(1))
        if images.device.type != "meta" and len(images) > (self.room if self.training else self.eval_room):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return self.layer(hidden)
"""


@pytest.fixture
def limited(tmp_path, words):
    """The words of a run of a model that has no room: `limited(room=, eval_room=)`."""
    (tmp_path / "small_machine.py").write_text(PLUGIN)
    (tmp_path / "mine" / "model").mkdir(parents=True)
    text = "_target_: small_machine.Limited\nroom: 99\neval_room: 999\n"
    (tmp_path / "mine" / "model" / "limited.yaml").write_text(text)

    def settings(*more, room, eval_room=999, steps=12):
        plugin = ["--config-dir", tmp_path / "mine", "plugins=[small_machine]"]
        model = ["model=limited", f"model.room={room}", f"model.eval_room={eval_room}"]
        kept = [w for w in words(*more, steps=steps, every=5) if not w.startswith("model")]
        return [*plugin, *kept, *model]

    return settings


def test_run_without_room_goes_on_in_parts_like_one_that_was_told_to_and_so_does_a_resumed_one(
    limited, server, only_run, read_card, end_of, tmp_path
):
    """Batches are of 16 images, of which 7 have room; after step 6 the run is made longer."""
    ended = server(limited("scheduler=constant", room=7, eval_room=20, steps=6), cwd=tmp_path)
    assert ended.code == 0, ended.stderr
    run = only_run(tmp_path)
    said = "steps are now computed in 4 parts of 4 images"
    assert ended.stdout.count(said) == 1
    warnings = read_card(run)["warnings"]
    assert len([w for w in warnings if said in w and "trainer.accumulate=4" in w]) == 1
    assert len([w for w in warnings if "type trainer.eval_batch_size=" in w]) == 1
    ended = server([f"resume={run}", "trainer.steps=12", "plugins=[small_machine]"], cwd=tmp_path)
    assert ended.code == 0, ended.stderr
    assert "in a step of" not in ended.stdout, "it is known from the start"
    assert [w for w in read_card(run)["warnings"] if "steps are computed in 4 parts" in w]
    found = end_of(run)

    told = limited("scheduler=constant", "trainer.accumulate=4", "output_dir=told", room=7, eval_room=20)
    ended = server(told, cwd=tmp_path)
    assert ended.code == 0, ended.stderr
    expected = end_of(next(tmp_path.glob("told/train/*/*")))
    for name in ("model", "optimizer", "average", "sums"):
        assert found[name] == expected[name], name


def test_run_that_never_has_room_ends_with_what_to_type_and_its_state(limited, server, only_run, read_card, tmp_path):
    ended = server(limited(room=1), cwd=tmp_path)
    assert ended.code == 6
    first, second = ended.stderr.splitlines()
    assert "out of memory in a step of 16 images and also in 8 parts of 2 images" in first
    assert "trainer.batch_size" in second
    assert "cvtrain resume=" in second
    assert read_card(only_run(tmp_path))["exit_code"] == 6


def children_of(pid):
    children = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid and fields[0] != "Z":
            children.append(int(path.parent.name))
    return sorted(children)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc to find the processes of a run")
def test_run_whose_reading_process_is_killed_ends_as_out_of_memory_and_can_go_on(
    images, only_run, read_card, server, tmp_path
):
    root = images(tmp_path / "photos")
    settings = [f"data.root={root}", "data.loader=files", "data.image_size=16", "model=mlp", "augment=none"]
    length = ["trainer.steps=100000", "trainer.evaluate_every=50", "trainer.batch_size=16", "output_dir=out"]
    with ThreadPoolExecutor(1) as pool:
        ending = pool.submit(server, ["data=image_folder", "data.num_workers=2", *settings, *length], cwd=tmp_path)
        while not list(tmp_path.glob("out/train/*/*/checkpoints/step-*")):
            assert not ending.done(), ending.result()
            time.sleep(0.05)
        (run_pid,) = children_of(server._process.pid)
        os.kill(children_of(run_pid)[0], signal.SIGKILL)
        ended = ending.result(timeout=60)
    assert ended.code == 6, ended.stderr
    first, second = ended.stderr.splitlines()
    assert "which read images, was killed by signal 9 (SIGKILL), as systems do where memory runs out" in first
    run = only_run(tmp_path)
    assert "data.num_workers=0" in second
    assert f"cvtrain resume={run.relative_to(tmp_path)}" in second
    card = read_card(run)
    assert (card["status"], card["exit_code"]) == ("failed", 6)
    step = max(int(path.name.split("-")[1]) for path in run.glob("checkpoints/step-*"))
    again = server([f"resume={run}", "data.num_workers=0", f"trainer.steps={step + 2}"], cwd=tmp_path)
    assert again.code == 0, again.stderr
    assert f"goes on after step {step} of" in again.stdout
