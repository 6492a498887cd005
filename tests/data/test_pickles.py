import pickle

import numpy as np
import pytest

from cvtrain.data.pickles import load_plain_pickle
from cvtrain.errors import DataError


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_pickles_of_every_protocol_are_read(protocol):
    pixels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    content = pickle.dumps({"data": pixels, b"labels": [1, 2, 3], "names": [b"a", "b"]}, protocol=protocol)
    read = load_plain_pickle(content, "batch")
    np.testing.assert_array_equal(read["data"], pixels)
    assert read["labels"] == [1, 2, 3]
    assert read["names"] == [b"a", "b"]


def test_pickle_by_python_2_is_read():
    # cPickle.dumps({'data': numpy.zeros((1, 3), 'uint8') + 7, 'labels': [5]}, 2) under Python 2
    content = (
        b"\x80\x02}q\x01(U\x04dataq\x02cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\nq\x04K\x00\x85U\x01b"
        b"\x87Rq\x05(K\x01K\x01K\x03\x86cnumpy\ndtype\nq\x06U\x02u1K\x00K\x01\x87Rq\x07(K\x03U\x01|NNNJ\xff\xff\xff\xff"
        b"J\xff\xff\xff\xffK\x00tb\x89U\x03\x07\x07\x07tbU\x06labelsq\x08]q\x09K\x05au."
    )
    read = load_plain_pickle(content, "batch")
    assert read["data"].tolist() == [[7, 7, 7]]
    assert read["labels"] == [5]


class Hostile:
    """Would create the file `marker` when unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return open, (str(self.marker), "w")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_hostile_pickle_is_refused_and_does_not_run(tmp_path, protocol):
    content = pickle.dumps({"data": Hostile(tmp_path / "marker")}, protocol=protocol)
    with pytest.raises(DataError, match=r"batch was refused: it asks to run \w+\.open"):
        load_plain_pickle(content, "batch")
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize(
    "content",
    [
        b"cnumpy\nndarray\n}(X\x08\x00\x00\x00__call__K\x01ub.",  # changes what stands for a function
        b"c_codecs\nencode\n(X\x01\x00\x00\x00aX\x05\x00\x00\x00rot13tR.",  # would import a codec
        b"cnumpy\nndarray\n)\x81.",  # makes an object without calling
        b"cnumpy\ndtype\n(tR.",
        b"Pdb\n.",  # persistent id
        b"\x80\x02\x82\x01.",  # extension registry
        b"}" * 10,
        b"",
    ],
)
def test_odd_pickle_is_damaged(content):
    with pytest.raises(DataError, match="batch is damaged or cut short"):
        load_plain_pickle(content, "batch")


def test_pickle_that_reserves_memory_is_refused():
    with pytest.raises(DataError, match="memory slots"):
        load_plain_pickle(b"}r\xff\xff\xff\x7f.", "batch")


def test_pickle_of_another_kind_is_refused():
    with pytest.raises(DataError, match="no dictionary"):
        load_plain_pickle(pickle.dumps([1]), "batch")
    with pytest.raises(DataError, match="not of uint8"):
        load_plain_pickle(pickle.dumps({"data": np.zeros(3)}), "batch")
    with pytest.raises(DataError, match="not of uint8"):
        load_plain_pickle(pickle.dumps({"data": np.array([None])}), "batch")
