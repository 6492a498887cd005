"""Processes that read images: what is said of one that dies."""

import os
import signal

import pytest
import torch
from torch.utils.data import DataLoader

from cvtrain.data.reading_processes import deaths_explained, start_process, started
from cvtrain.errors import MemoryLimitError

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")


@pytest.fixture
def loader():
    found = DataLoader(
        list(torch.eye(8)), num_workers=2, persistent_workers=True, worker_init_fn=start_process, batch_size=2
    )
    assert len(list(started(found))) == 4
    yield found
    found._iterator._shutdown_workers()


@pytest.mark.parametrize("error", [ConnectionResetError, EOFError, FileNotFoundError, RuntimeError])
def test_process_that_is_killed_while_it_hands_images_over_is_told_of(loader, error):
    killed = loader._iterator._workers[0].pid

    def read():
        with deaths_explained(loader):
            os.kill(killed, signal.SIGKILL)
            raise error("of whatever the main process was doing with it")

    with pytest.raises(MemoryLimitError, match=rf"process {killed}, which read images, was killed by signal 9"):
        read()


def test_error_while_all_processes_live_is_no_death(loader):
    with pytest.raises(ConnectionResetError, match="of another kind"), deaths_explained(loader):
        raise ConnectionResetError("of another kind")
