import ast
import builtins
import contextlib
import errno
import hashlib
import io
import os
import pickle
import random
import shutil
from pathlib import Path

import pytest
import torch

import cvtrain
from cvtrain.engine.checkpoint import (
    FORMAT,
    CheckpointFile,
    list_checkpoints,
    load_newest,
    mark_best,
    prune,
    read_checkpoint,
    remove_leftovers,
    save_checkpoint,
)
from cvtrain.errors import CheckpointError, OutputError


def state(step, *, size=400):
    generator = torch.Generator().manual_seed(step)
    return {"trainer": {"step": step, "weights": torch.randn(size, generator=generator), "list": [1, None, "a", 0.5]}}


def is_state(loaded, step):
    return torch.equal(loaded["trainer"]["weights"], state(step)["trainer"]["weights"])


@pytest.fixture
def two(tmp_path):
    """A folder with the checkpoints of steps 1 and 2."""
    return [save_checkpoint(tmp_path, state(step), step=step) for step in (1, 2)]


def named(folder, content, *, step=3, kind="step"):
    """Writes bytes under the name that a checkpoint of them would have."""
    path = folder / f"{kind}-{step:09d}-{hashlib.sha256(content).hexdigest()[:16]}.ckpt"
    path.write_bytes(content)
    return path


def test_loaded_state_is_the_saved_one_and_its_name_holds_its_checksum(tmp_path):
    saved = save_checkpoint(tmp_path, state(7), step=7)
    digest = hashlib.sha256(saved.path.read_bytes()).hexdigest()[:16]
    assert saved == CheckpointFile(tmp_path / f"step-000000007-{digest}.ckpt", "step", 7, digest)
    loaded = load_newest(tmp_path)
    assert loaded.path == saved.path
    assert loaded.notes == ()
    assert is_state(loaded.state, 7)
    assert loaded.state["trainer"]["list"] == [1, None, "a", 0.5]


def test_newest_is_told_by_step_not_by_time(two, tmp_path):
    os.utime(two[1].path, (0, 0))
    assert load_newest(tmp_path).path == two[1].path


def test_empty_and_missing_folders_hold_no_checkpoint(tmp_path):
    assert load_newest(tmp_path) is None
    assert load_newest(tmp_path / "missing") is None


# ------------------------------------------------------------------------------------------------ damage


def damages(content, rng):
    """Every kind of damage that a disk can do."""
    for _ in range(400):
        changed = bytearray(content)
        changed[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        yield bytes(changed)
    for _ in range(100):
        yield content[: rng.randrange(len(content))]
    for start in range(0, len(content), 512):
        if content[start : start + 512].strip(b"\0"):
            yield content[:start] + bytes(len(content[start : start + 512])) + content[start + 512 :]
    yield b""
    yield bytes(len(content))
    yield rng.randbytes(len(content))
    yield content + b"\0"


def test_no_damaged_file_is_ever_accepted(two):
    path, content = two[1].path, two[1].path.read_bytes()
    num_tried = 0
    for changed in damages(content, random.Random(0)):
        path.write_bytes(changed)
        with pytest.raises(CheckpointError, match=r"is damaged: its content does not match the checksum"):
            read_checkpoint(path)
        num_tried += 1
    assert num_tried > 500


@pytest.mark.parametrize("kind", ["flipped", "cut", "zeros", "empty", "random", "swapped"])
def test_damaged_newest_is_set_aside_and_the_next_older_is_taken(two, kind, tmp_path):
    content = bytearray(two[1].path.read_bytes())
    flipped = content.copy()
    flipped[999] ^= 4
    new = {
        "flipped": bytes(flipped),
        "cut": bytes(content[:-1]),
        "zeros": bytes(content[:512]) + bytes(len(content) - 512),
        "empty": b"",
        "random": random.Random(0).randbytes(len(content)),
        "swapped": two[0].path.read_bytes(),
    }[kind]
    two[1].path.write_bytes(new)
    loaded = load_newest(tmp_path)
    assert is_state(loaded.state, 1)
    assert loaded.notes == (f"{two[1].path} is damaged: its content does not match the checksum in its name",)
    assert (tmp_path / f"{two[1].path.name}.bad").read_bytes() == new
    assert not two[1].path.exists()
    assert load_newest(tmp_path).notes == ()


def test_file_that_the_disk_does_not_give_is_passed_over_and_kept_for_the_next_time(two, tmp_path, monkeypatch):
    whole = builtins.open

    def fail(path, *args, **kwargs):
        if Path(path) == two[1].path:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return whole(path, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(builtins, "open", fail)
        loaded = load_newest(tmp_path)
        assert is_state(loaded.state, 1)
        assert loaded.notes == (f"{two[1].path} cannot be read: Input/output error",)
    assert is_state(load_newest(tmp_path).state, 2)
    assert load_newest(tmp_path).notes == ()


def test_reader_that_does_not_own_the_run_renames_nothing(two, tmp_path):
    two[1].path.write_bytes(b"")
    assert is_state(load_newest(tmp_path, set_aside=False).state, 1)
    assert two[1].path.exists()


def test_when_all_are_damaged_nothing_is_deleted_and_nothing_starts_anew(two, tmp_path):
    for file in two:
        file.path.write_bytes(file.path.read_bytes()[:-3])
    before = sorted(path.read_bytes() for path in tmp_path.iterdir())
    for _ in range(2):
        with pytest.raises(CheckpointError, match=r"every step checkpoint in .* is damaged \(2\)") as raised:
            load_newest(tmp_path)
        assert raised.value.exit_code == 4
        assert sorted(path.read_bytes() for path in tmp_path.iterdir()) == before
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".bad", ".bad"]


def test_folder_that_cannot_be_read_is_told_and_nothing_starts_anew(two, tmp_path, monkeypatch):
    def refuse(*_args):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "listdir", refuse)
    for look in (load_newest, lambda folder: list_checkpoints(folder, "best")):
        with pytest.raises(CheckpointError, match=f"{tmp_path} cannot be read: Input/output error"):
            look(tmp_path)
    prune(two[1], keep=1)  # costs disk space only


def test_unreadable_file_keeps_its_name(two, tmp_path):
    two[1].path.unlink()
    two[1].path.mkdir()
    with pytest.raises(CheckpointError, match="cannot be read: Is a directory"):
        load_newest(tmp_path)
    assert two[1].path.exists()


def test_other_format_is_named_and_keeps_its_name(tmp_path):
    buffer = io.BytesIO()
    torch.save({**state(1), "format": FORMAT + 1, "torch": "9.9"}, buffer)
    path = named(tmp_path, buffer.getvalue())
    with pytest.raises(
        CheckpointError, match=rf"has format {FORMAT + 1}, written with torch 9.9.* reads format {FORMAT}"
    ):
        load_newest(tmp_path)
    assert path.exists()


@pytest.mark.parametrize(
    "content", [[], {}, {"format": None}, {"format": torch.ones(2)}, {"format": "1"}, torch.ones(2)]
)
def test_foreign_content_with_the_right_checksum_is_refused(content, two, tmp_path):
    buffer = io.BytesIO()
    torch.save(content, buffer)
    named(tmp_path, buffer.getvalue())
    loaded = load_newest(tmp_path)
    assert is_state(loaded.state, 2)
    assert "it has no format number" in loaded.notes[0]


# ------------------------------------------------------------------------------------------------ attacks


class Attack:
    """Makes a folder when it is unpickled."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return os.mkdir, (self.marker,)


def attacks(marker):
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        yield pickle.dumps(Attack(marker), protocol=protocol)
        yield pickle.dumps({"format": FORMAT, "trainer": Attack(marker)}, protocol=protocol)
    for new_zipfile in (True, False):
        for content in (
            Attack(marker),
            {"format": FORMAT, "trainer": {"weights": torch.ones(2), "a": [Attack(marker)]}},
        ):
            buffer = io.BytesIO()
            torch.save(content, buffer, _use_new_zipfile_serialization=new_zipfile)
            yield buffer.getvalue()


def test_code_in_a_file_with_the_right_checksum_does_not_run(two, tmp_path):
    marker, num_tried = tmp_path / "marker", 0
    for content in attacks(marker):
        path = named(tmp_path, content)
        with pytest.raises(CheckpointError, match="is not a checkpoint of cvtrain") as raised:
            read_checkpoint(path)
        assert "weights_only=False" not in "".join(raised.value.lines())
        loaded = load_newest(tmp_path)
        assert is_state(loaded.state, 2)
        assert not marker.exists()
        num_tried += 1
    assert num_tried >= 16
    pickle.loads(pickle.dumps(Attack(marker)))
    assert marker.exists(), "the attack is one"


def test_nothing_in_the_package_unpickles_freely():
    calls = []
    for path in Path(cvtrain.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("torch.load", "pickle.load", "pickle.loads"):
                calls.append(ast.unparse(node))
    assert calls
    assert [call for call in calls if "weights_only=True" not in call] == []


# ------------------------------------------------------------------------------------------------ faults of the disk

CALLS = ("open", "write", "fsync", "replace", "link", "listdir")


class Faulty:
    """Operating-system calls that fail from the `first` to the `last`, counted over all of them."""

    def __init__(self, monkeypatch, *, number=0, first=0, last=-1):
        self.number, self.first, self.last, self.count = number, first, last, 0
        for name in CALLS:
            monkeypatch.setattr(os, name, self._wrapped(getattr(os, name)))

    def _wrapped(self, real):
        def call(*args, **kwargs):
            self.count += 1
            if self.first <= self.count <= self.last:
                raise OSError(self.number, os.strerror(self.number))
            return real(*args, **kwargs)

        return call


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT])
@pytest.mark.parametrize("failing", range(1, 12))
def test_save_that_fails_at_any_call_leaves_the_older_checkpoint_and_nothing_else(
    failing, number, tmp_path, monkeypatch
):
    older = save_checkpoint(tmp_path, state(1), step=1)
    mark_best(older)
    with monkeypatch.context() as patch:
        faulty = Faulty(patch, number=number, first=failing, last=failing)
        with contextlib.suppress(OutputError) if failing < 11 else contextlib.nullcontext():
            mark_best(save_checkpoint(tmp_path, state(2), step=2))
    assert faulty.count >= min(failing, 10), "every call was failed once, and the eleventh does not exist"
    assert not list(tmp_path.glob(".tmp-*"))
    assert older.path.exists()
    for kind in ("step", "best"):
        loaded = load_newest(tmp_path, kind)
        assert loaded.notes == ()
        assert is_state(loaded.state, loaded.state["trainer"]["step"])
    mark_best(save_checkpoint(tmp_path, state(3), step=3))
    assert is_state(load_newest(tmp_path, "best").state, 3)
    assert len(list_checkpoints(tmp_path, "best")) == 1


def test_every_byte_is_on_the_disk_before_its_name_and_every_name_before_it_is_relied_on(tmp_path, monkeypatch):
    called = []

    def recorded(name, real):
        def call(*args, **kwargs):
            called.append(name)
            return real(*args, **kwargs)

        return call

    for name in (*CALLS, "unlink"):
        monkeypatch.setattr(os, name, recorded(name, getattr(os, name)))
    mark_best(save_checkpoint(tmp_path, state(1), step=1, sync_first=lambda: called.append("rows")))
    assert called == [
        *("rows", "open", "write", "fsync", "replace", "open", "fsync"),  # the last two: the folder
        *("link", "open", "fsync", "listdir"),
    ]
    called.clear()
    mark_best(save_checkpoint(tmp_path, state(2), step=2))
    assert called[-5:] == ["link", "open", "fsync", "listdir", "unlink"], "the old best goes last"


def test_error_of_a_save_says_where_and_why(tmp_path, monkeypatch):
    Faulty(monkeypatch, number=errno.ENOSPC, first=2, last=2)
    with pytest.raises(OutputError, match=r"checkpoint of step 2 could not be written .* No space left") as raised:
        save_checkpoint(tmp_path, state(2), step=2)
    assert str(tmp_path) in raised.value.message
    assert raised.value.exit_code == 4


def test_disk_that_writes_a_little_at_a_time_gets_it_all(tmp_path, monkeypatch):
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, bytes(data[:500])))
    saved = save_checkpoint(tmp_path, state(1), step=1)
    assert is_state(read_checkpoint(saved.path), 1)


def test_checkpoint_is_written_only_after_what_it_refers_to(tmp_path):
    def fail():
        raise OutputError("metrics.csv could not be written")

    with pytest.raises(OutputError, match="metrics"):
        save_checkpoint(tmp_path, state(1), step=1, sync_first=fail)
    assert list(tmp_path.iterdir()) == []


def test_interrupted_save_leaves_no_temporary_file(tmp_path, monkeypatch):
    def interrupt(*_args):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tmp_path, state(1), step=1)
    assert list(tmp_path.iterdir()) == []


def test_leftovers_of_killed_processes_are_removed_and_nothing_else(two, tmp_path):
    (tmp_path / ".tmp-123-abc").write_bytes(b"half")
    (tmp_path / ".tmp-mine").write_bytes(b"the user's own")
    remove_leftovers(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([".tmp-mine", two[0].path.name, two[1].path.name])


# ------------------------------------------------------------------------------------------------ best and old ones


def test_best_is_a_second_name_of_the_same_file_and_the_only_best(two, tmp_path):
    first = mark_best(two[0])
    assert first.path.samefile(two[0].path)
    second = mark_best(two[1])
    assert [file.path for file in list_checkpoints(tmp_path, "best")] == [second.path]
    assert mark_best(two[1]) == second, "again is no error"
    assert is_state(load_newest(tmp_path, "best").state, 2)


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK])
def test_best_is_a_copy_where_there_are_no_hard_links(number, two, tmp_path, monkeypatch):
    def refuse(*_args):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", refuse)
    best = mark_best(two[1])
    assert not best.path.samefile(two[1].path)
    assert is_state(read_checkpoint(best.path), 2)
    assert not list(tmp_path.glob(".tmp-*"))


def test_prune_keeps_the_newest_steps_and_the_best(tmp_path):
    files = [save_checkpoint(tmp_path, state(step), step=step) for step in range(1, 6)]
    best = mark_best(files[1])
    prune(files[-1], keep=2)
    assert [file.step for file in list_checkpoints(tmp_path, "step")] == [4, 5]
    assert is_state(read_checkpoint(best.path), 2)
    prune(files[-1], keep=1)
    assert [file.step for file in list_checkpoints(tmp_path, "step")] == [5]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_of_two_checkpoints_of_a_step_the_one_written_last_stays(order, tmp_path):
    older = save_checkpoint(tmp_path, state(1), step=1)
    versions = [save_checkpoint(tmp_path, {**state(2), "evaluated": i}, step=2) for i in range(2)]
    last = versions[order[1]]
    prune(last, keep=2)
    assert [file.path for file in list_checkpoints(tmp_path, "step")] == [older.path, last.path]


def test_names_that_are_no_checkpoints_are_left_alone(two, tmp_path):
    for name in ("step-2.ckpt", "notes.txt", "step-000000009-zzzzzzzzzzzzzzzz.ckpt", f"{two[0].path.name}.bad"):
        (tmp_path / name).write_text("x")
    assert [file.step for file in list_checkpoints(tmp_path, "step")] == [1, 2]
    copy = tmp_path / "mine.ckpt"
    shutil.copy(two[1].path, copy)
    assert is_state(read_checkpoint(copy), 2)


def test_missing_file_is_told(tmp_path):
    with pytest.raises(CheckpointError, match="cannot be read: No such file"):
        read_checkpoint(tmp_path / "nothing.ckpt")
