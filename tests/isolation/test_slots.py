import os
from pathlib import Path

import pytest

from cvtrain.isolation import Slot, slots_of
from cvtrain.isolation.memory import ControlGroup, available_memory_bytes, control_groups
from cvtrain.isolation.slots import divided, names_of

GIB = 1 << 30


def parted(jobs, *, num_jobs=None, device="cpu", cores=8, memory_bytes=None, gpus=()):
    """Jobs at a time, threads of each, GPU of each."""
    slots = divided(jobs, num_jobs=num_jobs, device=device, cores=cores, memory_bytes=memory_bytes, gpus=gpus)
    (threads,) = {slot.num_threads for slot in slots}
    assert {slot.environment["OMP_NUM_THREADS"] for slot in slots} == {str(threads)}
    return len(slots), threads, [slot.environment.get("CUDA_VISIBLE_DEVICES") for slot in slots]


@pytest.mark.parametrize(
    ("jobs", "options", "count", "threads"),
    [
        ("auto", {}, 8, 1),
        ("auto", {"num_jobs": 3}, 3, 2),
        ("auto", {"num_jobs": 0}, 1, 8),
        ("auto", {"memory_bytes": 5 * GIB}, 2, 4),
        ("auto", {"memory_bytes": GIB}, 1, 8),
        ("auto", {"memory_bytes": 99 * GIB, "num_jobs": 99}, 8, 1),
        (3, {"memory_bytes": GIB}, 3, 2),
        (3, {"num_jobs": 2}, 2, 4),
        (16, {}, 16, 1),
        (1, {}, 1, 8),
        ("auto", {"device": "mps"}, 1, 8),
        ("auto", {"device": "cuda:1"}, 1, 8),
        (2, {"device": "cuda:1"}, 2, 4),
        ("auto", {"device": "cuda"}, 1, 8),
    ],
)
def test_cores_are_divided_among_the_jobs_at_a_time(jobs, options, count, threads):
    assert parted(jobs, **options) == (count, threads, [None] * count)


@pytest.mark.parametrize(
    ("jobs", "options", "threads", "gpus"),
    [
        ("auto", {}, 2, ["4", "5", "GPU-a"]),
        ("auto", {"num_jobs": 2}, 4, ["4", "5"]),
        ("auto", {"memory_bytes": GIB}, 2, ["4", "5", "GPU-a"]),
        (1, {}, 8, ["4"]),
        (5, {}, 1, ["4", "5", "GPU-a", "4", "5"]),
    ],
)
def test_each_job_is_given_a_gpu_in_turn(jobs, options, threads, gpus):
    assert parted(jobs, device="auto", gpus=["4", "5", "GPU-a"], **options) == (len(gpus), threads, gpus)


@pytest.mark.parametrize(
    ("count", "visible", "names"),
    [
        (0, None, []),
        (3, None, ["0", "1", "2"]),
        (2, "3,5", ["3", "5"]),
        (2, "3, 5,9", ["3", "5"]),  # of which there is no 9
        (0, "", []),
        (0, "-1", []),
        (2, "GPU-a,GPU-b", ["GPU-a", "GPU-b"]),
        (None, "MIG-a,MIG-b", ["MIG-a", "MIG-b"]),
    ],
)
def test_visible_gpus_are_handed_out_by_the_names_that_they_have(count, visible, names):
    assert names_of(count, visible) == names


def test_slots_of_this_machine_share_its_cores():
    cores = len(os.sched_getaffinity(0))
    assert slots_of(1, num_jobs=None, device="cpu") == [Slot(cores, {"OMP_NUM_THREADS": str(cores)})]
    assert 1 <= len(slots_of("auto", num_jobs=None, device="cpu")) <= cores


# -------------------------------------------------------------------------------------------------------------- memory


def write(folder, **texts):
    for name, text in texts.items():
        (folder / name.replace("__", ".")).write_text(text)


def test_what_a_control_group_leaves_free_is_its_limit_less_what_cannot_be_dropped(tmp_path):
    write(tmp_path, memory__max="1000\n", memory__current="700\n", memory__stat="anon 1\ninactive_file 250\n")
    assert ControlGroup(tmp_path).free_bytes() == 550
    write(tmp_path, memory__max="max\n")
    assert ControlGroup(tmp_path).free_bytes() is None
    assert ControlGroup(tmp_path / "none").free_bytes() is None


def test_what_a_control_group_of_the_first_version_leaves_free(tmp_path):
    write(
        tmp_path,
        memory__limit_in_bytes="1000\n",
        memory__usage_in_bytes="1100\n",
        memory__stat="inactive_file 7\ntotal_inactive_file 250\n",
    )
    assert ControlGroup(tmp_path, is_first_version=True).free_bytes() == 150


def test_memory_of_this_machine_is_no_more_than_it_has():
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0 < available_memory_bytes() <= total


def test_control_groups_are_those_of_this_process():
    groups = control_groups()
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        number, controllers, name = line.split(":", 2)
        if number == "0" or "memory" in controllers:
            assert any(str(group.folder).endswith(name.rstrip("/")) for group in groups), line
    assert {group.oom_path.name for group in groups if group.is_first_version} <= {"memory.oom_control"}
