"""The bugs that are planted: what each changes in which file, and which tests should see it.

Every one is a mistake that programs of this kind have shipped with, or that a hurried change could make here.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Bug:
    """A bug.

    Args:
        name: What is wrong then.
        file: Below the checkout.
        old: Text that stands in the file just once.
        new: What takes its place.
        tests: Words for pytest; other tests may see it too, these are enough.
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    @contextlib.contextmanager
    def planted(self, checkout: Path) -> Iterator[None]:
        """The bug is in a checkout while this lasts."""
        path = checkout / self.file
        text = path.read_text(encoding="utf-8")
        assert text.count(self.old) == 1, f"{self.name}: {self.file} holds {self.old!r} {text.count(self.old)} times"
        path.write_text(text.replace(self.old, self.new), encoding="utf-8")
        try:
            yield
        finally:
            path.write_text(text, encoding="utf-8")


CHECKPOINTS, RESUMED = ("tests/engine/test_checkpoint.py",), ("tests/runs/test_resume.py",)

BUGS = [
    # what is on the disk
    Bug(
        "file is not synced",
        "cvtrain/engine/durable.py",
        "        write_all(descriptor, data)\n        os.fsync(descriptor)\n",
        "        write_all(descriptor, data)\n",
        CHECKPOINTS,
    ),
    Bug(
        "folder is not synced",
        "cvtrain/engine/durable.py",
        "        sync_folder(final.parent)\n",
        "",
        CHECKPOINTS,
    ),
    Bug(
        "named before it is written",
        "cvtrain/engine/durable.py",
        "        _write_synced(temporary, memoryview(data))\n        os.replace(temporary, final)\n",
        "        _write_synced(final, memoryview(data))\n",
        CHECKPOINTS,
    ),
    Bug(
        "old ones removed first",
        "cvtrain/safekeeping.py",
        "            file = self._write(state, step)\n",
        '            [old.path.unlink() for old in list_checkpoints(self.run_dir.checkpoint_dir, "step")]\n'
        "            file = self._write(state, step)\n",
        ("tests/test_safekeeping.py", "tests/runs/test_kill.py"),
    ),
    Bug(
        "rows not synced before",
        "cvtrain/engine/checkpoint.py",
        "    sync_first()\n",
        "",
        CHECKPOINTS,
    ),
    Bug(
        "checksum not compared",
        "cvtrain/engine/checkpoint.py",
        "if match and digest[:16] != match[3]:",
        "if False:",
        CHECKPOINTS,
    ),
    Bug(
        "lock is not taken",
        "cvtrain/folders.py",
        "            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)\n",
        "",
        ("tests/test_outputs.py",),
    ),
    Bug(
        "rows not cut",
        "cvtrain/outputs.py",
        "            os.truncate(self.metrics_path, num_bytes)\n",
        "            pass\n",
        ("tests/test_outputs.py",),
    ),
    # what a resumed run goes on with
    Bug(
        "optimizer not restored",
        "cvtrain/engine/trainer.py",
        '        self.optimizer.load_state_dict(state["optimizer"])\n',
        "",
        RESUMED,
    ),
    Bug(
        "schedule not restored",
        "cvtrain/engine/trainer.py",
        '        self.schedule.load_state_dict(state["schedule"])\n',
        "",
        RESUMED,
    ),
    Bug(
        "averaged weights not restored",
        "cvtrain/engine/averaging.py",
        "                average.copy_(saved)\n",
        "                pass\n",
        ("tests/engine/test_averaging.py", *RESUMED),
    ),
    Bug(
        "best not restored",
        "cvtrain/engine/selection.py",
        '        self.best = Best(**state["best"]) if state["best"] else None\n',
        "",
        RESUMED,
    ),
    Bug(
        "patience not restored",
        "cvtrain/engine/selection.py",
        '        self.num_waited, self._reference = state["num_waited"], state["reference"]\n',
        '        self._reference = state["reference"]\n',
        ("tests/engine/test_selection.py", *RESUMED),
    ),
    Bug(
        "step is off by one",
        "cvtrain/engine/trainer.py",
        '        self.step, self._evaluated_at = state["step"], state["evaluated_at"]\n',
        '        self.step, self._evaluated_at = state["step"] + 1, state["evaluated_at"]\n',
        RESUMED,
    ),
    Bug(
        "random numbers not from the step",
        "cvtrain/engine/step.py",
        "        self.seed_step(step)\n",
        "",
        ("tests/engine/test_trainer.py", "tests/engine/test_distributed.py"),
    ),
    # numbers and memory
    Bug(
        "infinite loss not seen",
        "cvtrain/engine/finite.py",
        "        if bad_step:\n",
        "        if False:\n",
        ("tests/engine/test_finite.py", "tests/engine/test_trainer.py"),
    ),
    Bug(
        "statistics counted twice",
        "cvtrain/engine/memory.py",
        "            undo()\n            free_memory(",
        "            free_memory(",
        ("tests/engine/test_trainer.py", "tests/runs/test_memory.py"),
    ),
    Bug(
        "accuracy of an image too many",
        "cvtrain/engine/evaluator.py",
        "self.num_correct.item() / self.num_images",
        "self.num_correct.item() / (self.num_images + 1)",
        ("tests/engine/test_evaluator.py",),
    ),
    # what comes from outside
    Bug(
        "block list instead of allow list",
        "cvtrain/targets.py",
        '    return any(module_name == package or module_name.startswith(package + ".") for package in packages)\n',
        '    return module_name.partition(".")[0] not in ("os", "posix", "subprocess", "builtins", "shutil", "sys")\n',
        ("tests/security/test_configs.py", "tests/test_targets.py"),
    ),
    Bug(
        "pickles are run",
        "cvtrain/engine/checkpoint.py",
        'torch.load(_rewound(file), map_location="cpu", weights_only=True)',
        'torch.load(_rewound(file), map_location="cpu", weights_only=False)',
        CHECKPOINTS,
    ),
    Bug(
        "members leave the archive",
        "cvtrain/data/archives.py",
        ' or ".." in pure.parts',
        "",
        ("tests/data/test_archives.py",),
    ),
    Bug(
        "download not verified",
        "cvtrain/data/download.py",
        "            if not (found := difference(part, download)):\n",
        "            if not (found := None):\n",
        ("tests/data/test_download.py",),
    ),
    Bug(
        "formulas in cells",
        "cvtrain/plain_text.py",
        """return f"'{shown}" if _FORMULA.match(shown) and not _is_number(shown) else shown""",
        "return shown",
        ("tests/test_outputs.py",),
    ),
    Bug(
        "control characters are shown",
        "cvtrain/plain_text.py",
        'c if _is_seen(c) else c.encode("unicode_escape", "backslashreplace").decode() for c in text',
        "c for c in text",
        ("tests/test_outputs.py", "tests/test_console.py"),
    ),
    Bug(
        "secrets are written",
        "cvtrain/config.py",
        'return "***" if _SECRET.search(key) else _URL_PASSWORD.sub("***", settings)',
        "return settings",
        ("tests/test_cli.py",),
    ),
    Bug(
        "first bad file only",
        "cvtrain/data/file_splits.py",
        "for index, reason in bad]\n",
        "for index, reason in bad[:1]]\n",
        ("tests/data/test_folder.py", "tests/data/test_bad_files.py"),
    ),
    Bug(
        "leaks not seen",
        "cvtrain/data/audit/exact.py",
        "        if found:\n",
        "        if len(found) > 1:\n",
        ("tests/data/audit/test_exact.py", "tests/tasks/test_audit.py"),
    ),
    # sweeps
    Bug(
        "jobs without figures count as done",
        "cvtrain/sweeps/job_folder.py",
        '        is_lost = record.status == "done" and record.task in PLACED_TASKS and not self._has_card()\n',
        "        is_lost = False\n",
        ("tests/jobs/test_ledger.py",),
    ),
]
