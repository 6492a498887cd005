"""Files of a run that a disk, or somebody, has changed: checkpoints first, then all others."""

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

from cvtrain.engine.checkpoint import list_checkpoints, load_newest
from tests.faults.figures import Figure, Settings
from tests.faults.processes import Server
from tests.faults.small_runs import WARM_UP, differences, end_of, only_run, words

SHORT, LONG = (words("trainer.checkpoint.every_minutes=100", steps=steps) for steps in (14, 28))
OTHERS = ("run.json", "metrics.csv", "config.yaml", "split.npz", "predictions.csv")
PAGE = 4096


def flipped(content: bytes, rng: random.Random) -> bytes:
    """One bit changed."""
    changed = bytearray(content)
    changed[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def truncated(content: bytes, rng: random.Random) -> bytes:
    """Cut anywhere."""
    return content[: rng.randrange(len(content))]


def zeroed(content: bytes, rng: random.Random) -> bytes:
    """A page of zeros; of a small file all of it."""
    pages = [start for start in range(0, len(content), PAGE) if content[start : start + PAGE].strip(b"\0")]
    start = rng.choice(pages)
    page = content[start : start + PAGE]
    return content[:start] + bytes(len(page)) + content[start + len(page) :]


def noise(content: bytes, rng: random.Random) -> bytes:
    """Other bytes, as many."""
    return rng.randbytes(len(content))


def swapped(content: bytes, rng: random.Random, *, others: list[bytes]) -> bytes:
    """The content of another file."""
    return rng.choice([other for other in others if other != content])


CHECKPOINT_DAMAGES = ((flipped, 1000), (truncated, 200), (zeroed, 200), (swapped, 50))
"""Each with how often."""


def broken_checkpoint(folder: Path, content: bytes) -> str | None:
    """Puts bytes in the place of the newest of several checkpoints; returns what did not hold, or None."""
    *_, second, newest = list_checkpoints(folder, "step")
    before = newest.path.read_bytes()
    newest.path.unlink()  # another name of the same file is to stay as it is
    newest.path.write_bytes(content)
    bad = newest.path.with_name(f"{newest.path.name}.bad")
    try:
        loaded = load_newest(folder)
        if loaded.path != second.path:
            return f"{loaded.path.name} was taken"
        if not any(newest.path.name in note for note in loaded.notes):
            return "said nothing of it"
        return None if bad.read_bytes() == content else "the damaged file is not as it was"
    finally:
        bad.unlink(missing_ok=True)
        newest.path.write_bytes(before)


def _checkpoints(run: Path, settings: Settings) -> Iterator[Figure]:
    required = "never taken; the next older one is, and it is said"
    files = [file.path.read_bytes() for file in list_checkpoints(run / "checkpoints", "step")]
    for change, count in CHECKPOINT_DAMAGES:
        rng, broken = settings.random(change.__name__), []
        for number in range(count):
            more = {"others": files} if change is swapped else {}
            what = broken_checkpoint(run / "checkpoints", change(files[-1], rng, **more))
            broken += [f"{change.__name__} {number}: {what}"] if what else []
        yield Figure(f"newest checkpoint {change.__name__}", count, count, required, tuple(broken))


def all_damaged(server: Server, run: Path, *, cwd: Path) -> str | None:
    """Damages every checkpoint and goes on; returns what did not hold, or None."""
    folder = run / "checkpoints"
    for file in list_checkpoints(folder, "step"):
        content = file.path.read_bytes()
        file.path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))  # the best one is another name of one of them
    before = sorted(path.read_bytes() for path in folder.iterdir())
    for _ in range(2):
        ended = server([f"resume={run}", "trainer.steps=100"], cwd=cwd)
        if ended.code != 4 or "is damaged" not in ended.stderr or "Traceback" in ended.stderr:
            return f"ended with {ended.code}: {ended.stderr[:300]}"
    return None if sorted(path.read_bytes() for path in folder.iterdir()) == before else "something was deleted"


def broken_by(server: Server, run: Path, name: str, content: bytes, *, expected: dict) -> str | None:
    """Changes one file of a run that is done, and trains longer; returns what did not hold, or None.

    Either the run ends as it would have, and says what in the file is not to be relied on; or it is refused in words.
    """
    (run / name).write_bytes(content)
    ended = server([f"resume={run}", "trainer.steps=28"], cwd=run)
    if ended.code:
        is_told = ended.code in (2, 3, 4) and "Traceback" not in ended.stderr and len(ended.stderr.splitlines()) <= 6
        return None if is_told else f"ended with {ended.code}: {ended.stderr[:300]}"
    try:
        different = differences(run, expected)
    except (ValueError, IndexError, KeyError):  # rows that no program can read
        different = ["metrics.csv"]
    if name == "metrics.csv" and "metrics.csv" in ended.stdout:
        different = [key for key in different if key != "metrics.csv"]
    return f"ended with other {', '.join(different)}, without a word" if different else None


def _other_files(server: Server, folder: Path, settings: Settings, *, times: int = 10) -> Iterator[Figure]:
    short, long = folder / "short", folder / "long"
    assert server(SHORT, cwd=short).code == server(LONG, cwd=long).code == 0
    expected, original = end_of(only_run(long)), only_run(short)
    for name in OTHERS:
        rng, broken = settings.random(name), []
        for number in range(times):
            for change in (flipped, truncated, zeroed, noise):
                run = folder / f"{name}-{change.__name__}-{number}"
                shutil.copytree(original, run)
                what = broken_by(server, run, name, change((run / name).read_bytes(), rng), expected=expected)
                if what:
                    broken.append(f"{change.__name__}: {what} ({run})")
                else:
                    shutil.rmtree(run)
        count, required = 4 * times, "the same end, changed rows told of; or refused in words"
        yield Figure(f"{name} damaged, then trained longer", count, count, required, tuple(broken))
        settings.say(name)


def measure(settings: Settings) -> list[Figure]:
    """Damages every file of a run in many ways."""
    folder = settings.folder(__name__)
    server = Server(folder, WARM_UP)
    try:
        assert server(LONG, cwd=folder / "checkpoints").code == 0
        run = only_run(folder / "checkpoints")
        figures = list(_checkpoints(run, settings))
        settings.say("checkpoints")
        what = all_damaged(server, run, cwd=folder / "checkpoints")
        required = "exit 4 in words, nothing deleted"
        figures.append(Figure("all checkpoints damaged", 1, 2, required, (what,) if what else ()))
        return [*figures, *_other_files(server, folder, settings)]
    finally:
        server.close()
