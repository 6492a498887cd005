from cvtrain.data.cifar_layout import (
    CIFAR10,
    CIFAR10_ARCHIVES,
    CIFAR10_NAMES,
    CIFAR100,
    CIFAR100_ARCHIVES,
    CIFAR100_COARSE_NAMES,
    CIFAR100_FINE_NAMES,
)


def test_official_names_are_complete():
    counts = [len(set(names)) for names in (CIFAR10_NAMES, CIFAR100_COARSE_NAMES, CIFAR100_FINE_NAMES)]
    assert counts == [10, 20, 100]
    assert list(CIFAR10_NAMES) == sorted(CIFAR10_NAMES)
    assert list(CIFAR100_FINE_NAMES) == sorted(CIFAR100_FINE_NAMES)


def test_archives_have_checksums_and_their_own_names():
    archives = (*CIFAR10_ARCHIVES, *CIFAR100_ARCHIVES)
    assert len({archive.file_name for archive in archives}) == 4
    assert [len(archive.sha256) for archive in archives] == [64] * 4
    assert [len(archive.md5) for archive in archives] == [32] * 4
    assert all(archive.address.endswith(f"/{archive.file_name}") for archive in archives)


def test_test_batch_comes_last_and_both_forms_are_read():
    assert CIFAR10.batches == (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")
    assert CIFAR100.batches == ("train", "test")
    assert {"test", "test.bin", "meta", "coarse_label_names.txt", "fine_label_names.txt"} < CIFAR100.files
