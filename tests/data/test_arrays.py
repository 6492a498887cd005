import numpy as np

from cvtrain.data.arrays import array_sha256, check_arrays, image_data, load_arrays, store_arrays

ARRAYS = {"pixels": np.arange(24, dtype=np.uint8).reshape(2, 3, 4), "labels": np.array([3, 1])}


def test_stored_arrays_come_back_with_facts_and_checksums(tmp_path):
    store_arrays(tmp_path / "a.arrays", check_arrays(ARRAYS, {"archive": "x", "names": ["a"]}))
    read = load_arrays(tmp_path / "a.arrays", {"archive": "x"})
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(read.arrays[name], array)
        assert read.sha256[name] == array_sha256(array)
    assert read.facts == {"archive": "x", "names": ["a"]}
    assert [path.name for path in tmp_path.iterdir()] == ["a.arrays"]


def test_every_flipped_bit_of_stored_arrays_is_found(tmp_path):
    path = tmp_path / "a.arrays"
    store_arrays(path, check_arrays(ARRAYS, {"archive": "x"}))
    good = path.read_bytes()
    for position in range(len(good)):
        path.write_bytes(good[:position] + bytes([good[position] ^ 4]) + good[position + 1 :])
        assert load_arrays(path, {"archive": "x"}) is None
    for length in range(0, len(good), 7):
        path.write_bytes(good[:length])
        assert load_arrays(path, {"archive": "x"}) is None


def test_arrays_stored_for_something_else_are_not_used(tmp_path):
    store_arrays(tmp_path / "a.arrays", check_arrays(ARRAYS, {"archive": "x"}))
    assert load_arrays(tmp_path / "a.arrays", {"archive": "y"}) is None
    assert load_arrays(tmp_path / "missing.arrays", {}) is None


def test_folder_that_cannot_be_written_is_no_error(tmp_path):
    store_arrays(tmp_path / "missing" / "a.arrays", check_arrays(ARRAYS, {}))
    assert not (tmp_path / "missing").exists()


def test_fingerprint_follows_pixels_labels_and_names():
    pixels, labels = np.zeros((2, 4, 4, 1), np.uint8), np.array([0, 1])
    split = (pixels, labels)
    base = image_data(split, split, class_names=("a", "b")).fingerprint
    assert base == image_data((pixels.copy(), labels.astype(np.uint8)), split, class_names=("a", "b")).fingerprint
    other = [
        image_data((pixels + np.uint8(1), labels), split, class_names=("a", "b")),
        image_data(split, (pixels, labels[::-1]), class_names=("a", "b")),
        image_data(split, split, class_names=("b", "a")),
        image_data((pixels.reshape(2, 2, 2, 4), labels), split, class_names=("a", "b")),
    ]
    assert len({base, *(data.fingerprint for data in other)}) == 5
