import gc
import multiprocessing
import os
import time
import weakref

import numpy as np
import pytest
import torch
from PIL import Image

from cvtrain.data.batches import Batches, batch_bounds
from cvtrain.data.images import ImageSet, MemoryImages
from cvtrain.data.labelled_images import FileImages
from cvtrain.data.reading_processes import start_process
from cvtrain.errors import DataError

CPU = torch.device("cpu")


def memory_set(count=20, size=4, channels=3):
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, size, size, channels), generator=generator, dtype=torch.uint8)
    return ImageSet(MemoryImages(pixels), torch.arange(count) % 5)


def file_set(folder, image_set):
    """The same images as PNG files."""
    paths = []
    for i, pixels in enumerate(image_set.images.pixels.numpy()):
        paths.append(str(folder / f"{i:03}.png"))
        Image.fromarray(pixels).save(paths[-1])
    return ImageSet(FileImages(paths, image_size=pixels.shape[0], channels=3), image_set.labels)


def batches_of(image_set, *, indices=None, batch_size=6, seed=0, num_workers=0):
    indices = torch.arange(len(image_set)) if indices is None else indices
    return Batches(image_set, indices, batch_size=batch_size, device=CPU, seed=seed, num_workers=num_workers)


def order_of(found):
    return [batch.indices.tolist() for batch in found]


def flat(order):
    return [index for batch in order for index in batch]


def assert_equal_batches(ours, theirs):
    ours, theirs = list(ours), list(theirs)
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert torch.equal(a.images, b.images)
        assert torch.equal(a.labels, b.labels)
        assert torch.equal(a.indices, b.indices)


@pytest.mark.parametrize(
    ("num_images", "batch_size", "sizes"),
    [
        (10, 5, [5, 5]),
        (12, 5, [5, 5, 2]),
        (11, 5, [5, 6]),  # a last batch of one joins the one before
        (3, 5, [3]),
        (5, 5, [5]),
        (6, 5, [6]),
        (1, 5, [1]),
        (4, 1, [1, 1, 1, 1]),  # batches of one are what was asked for
        (5, 2, [2, 3]),
        (0, 5, []),
    ],
)
def test_batches_cover_all_images_without_a_last_batch_of_one(num_images, batch_size, sizes):
    bounds = batch_bounds(num_images, batch_size)
    assert [high - low for low, high in bounds] == sizes
    assert [i for low, high in bounds for i in range(low, high)] == list(range(num_images))


@pytest.mark.parametrize("batch_size", [1, 4, 7, 19, 20, 1000])
def test_every_image_is_seen_once_per_epoch(batch_size):
    batches = batches_of(memory_set(), batch_size=batch_size)
    for epoch in range(3):
        order = order_of(batches.shuffled(epoch))
        assert len(order) == len(batches)
        assert sorted(flat(order)) == list(range(20))
    assert batches.num_images == 20


def test_batches_hold_the_images_and_labels_of_their_indices():
    image_set = memory_set()
    indices = torch.tensor([3, 5, 8, 13, 19])
    for batch in batches_of(image_set, indices=indices, batch_size=2).shuffled(0):
        assert torch.equal(batch.labels, image_set.labels[batch.indices])
        assert torch.equal(batch.images, image_set.images.pixels[batch.indices].permute(0, 3, 1, 2))
        assert batch.images.is_contiguous(memory_format=torch.channels_last)
        assert batch.images.dtype == torch.uint8
        assert set(batch.indices.tolist()) <= set(indices.tolist())


def test_order_depends_on_seed_and_epoch_alone():
    batches = batches_of(memory_set())
    first = order_of(batches.shuffled(0))
    torch.rand(5)
    list(batches.shuffled(7))
    assert order_of(batches.shuffled(0)) == first
    assert order_of(batches_of(memory_set(), batch_size=6).shuffled(0)) == first
    assert order_of(batches.shuffled(1)) != first
    assert order_of(batches_of(memory_set(), seed=1).shuffled(0)) != first
    assert flat(first) != sorted(flat(first))
    # The size of batches cuts the same order elsewhere.
    assert flat(order_of(batches_of(memory_set(), batch_size=3).shuffled(0))) == flat(first)


def test_orders_of_many_epochs_put_every_image_everywhere():
    batches = batches_of(memory_set(5), batch_size=5)
    firsts = [order_of(batches.shuffled(epoch))[0][0] for epoch in range(500)]
    counts = np.bincount(firsts, minlength=5)
    assert ((counts - 100) ** 2 / 100).sum() < 4 + 6 * np.sqrt(8)


def test_starting_later_equals_skipping():
    batches = batches_of(memory_set())
    for start in range(len(batches) + 1):
        assert_equal_batches(batches.shuffled(4, start=start), list(batches.shuffled(4))[start:])


def test_in_order_follows_the_indices():
    batches = batches_of(memory_set(), indices=torch.tensor([4, 2, 9]), batch_size=2)
    assert order_of(batches.in_order()) == [[4, 2, 9]]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_files_give_the_same_batches_as_memory(tmp_path, num_workers):
    image_set = memory_set()
    memory = batches_of(image_set, indices=torch.arange(1, 20))
    files = batches_of(file_set(tmp_path, image_set), indices=torch.arange(1, 20), num_workers=num_workers)
    state = torch.get_rng_state()
    for epoch in range(2):
        assert_equal_batches(files.shuffled(epoch), memory.shuffled(epoch))
    assert_equal_batches(files.shuffled(1, start=2), memory.shuffled(1, start=2))
    half_read = files.shuffled(2)
    next(half_read)  # an epoch that is left in the middle, as by a signal, must not leak into the next
    assert_equal_batches(files.in_order(), memory.in_order())
    if num_workers:  # else each batch is read from a seed of its own, for readers that draw
        assert torch.equal(torch.get_rng_state(), state), "reading drew from the global generator"


@pytest.mark.parametrize("num_workers", [0, 1])
def test_unreadable_file_is_an_error_without_a_traceback(tmp_path, num_workers):
    files = file_set(tmp_path, memory_set())
    (tmp_path / "007.png").write_bytes(b"no picture")
    batches = batches_of(files, num_workers=num_workers)
    with pytest.raises(DataError, match=r"007\.png") as caught:
        list(batches.in_order())
    assert "Traceback" not in caught.value.message
    assert len(caught.value.lines()) == 1
    assert len(next(batches.in_order()).labels) == 6, "the batch before it can still be read"


def test_batches_leave_the_images_as_they_are():
    image_set = memory_set()
    before = image_set.images.pixels.clone()
    for batch in batches_of(image_set).shuffled(0):
        batch.images.zero_()
    assert torch.equal(image_set.images.pixels, before)


def test_processes_of_batches_that_nobody_uses_any_more_end_at_once(tmp_path):
    batches = batches_of(file_set(tmp_path, memory_set()), num_workers=2)
    batches.itself = batches  # as a run is part of circles, which only the garbage collector ends
    next(batches.in_order())
    processes = batches._reader._loader._iterator._workers
    gone, started = weakref.ref(batches), time.monotonic()
    del batches
    gc.collect()
    assert gone() is None
    assert not any(process.is_alive() for process in processes)
    assert time.monotonic() - started < 8, "torch waits five seconds for each process that it cannot reach"


def test_process_whose_main_process_dies_while_it_starts_ends_too():
    reader, writer = os.pipe()
    killed = os.fork()
    if not killed:
        process = multiprocessing.get_context("fork").Process(target=begin_late)
        process.start()
        os.write(writer, str(process.pid).encode())
        os._exit(0)
    os.waitpid(killed, 0)
    orphan, end = int(os.read(reader, 20)), time.monotonic() + 20
    os.close(reader), os.close(writer)
    while is_alive(orphan):
        assert time.monotonic() < end, "it reads for nobody"
        time.sleep(0.1)


def begin_late():
    time.sleep(0.5)  # its main process is gone by now
    start_process(0)
    time.sleep(60)


def is_alive(pid):
    """Whether a process runs; one that has ended may wait for whoever has adopted it."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return not file.read().rpartition(")")[2].startswith(" Z")
    except FileNotFoundError:
        return False
