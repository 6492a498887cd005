"""Checkpoints that somebody made to do harm: to run code, to crash the reader, or to take all of its memory."""

import copy
import io
import os
import pickle
import struct
import tarfile
import warnings
import zipfile
from collections import OrderedDict

import torch
from torch import _utils as rebuild


class Calls:
    """Pickled as a call of anything: what a reader does that believes it."""

    def __init__(self, function, *arguments, state=None):
        self.function, self.arguments, self.state = function, arguments, state

    def __reduce__(self):
        if self.state is None:
            return self.function, self.arguments
        return self.function, self.arguments, self.state


def code(marker):
    """Makes a folder when it is unpickled."""
    return Calls(os.mkdir, str(marker))


def saved(value, *, as_zip=True):
    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=as_zip)
    return buffer.getvalue()


def changed(state, path, value):
    """A state with another value at `a/b/0`."""
    state = copy.deepcopy(state)
    node = state
    *keys, last = [int(key) if key.isdecimal() else key for key in path.split("/")]
    for key in keys:
        node = node[key]
    node[last] = value
    return state


def archive(entries, *, compression=zipfile.ZIP_STORED):
    """A zip file as torch writes it, of any content."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        for name, content in entries:
            file.writestr(name, content)
    return buffer.getvalue()


def parts(content):
    """What a file of `torch.save` consists of."""
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        return [(name, file.read(name)) for name in file.namelist()]


def with_pickle(state, pickled):
    """The file of a state with another pickle in it."""
    return archive([(name, pickled if name.endswith("data.pkl") else content) for name, content in parts(saved(state))])


# ------------------------------------------------------------------------------------------------ code

PLACES = (
    *("config/model/hidden", "config/choices", "facts/class_names", "facts/statistics/mean", "trainer/step"),
    *("trainer/model", "trainer/optimizer/state", "trainer/average", "precision", "selection", "diagnosis"),
)


def with_code(state, marker):
    """Files that would make the folder `marker`: by kind, their bytes."""
    attack = code(marker)
    found = {f"code at {place}": saved(changed(state, place, attack)) for place in PLACES}
    weight = next(iter(state["trainer"]["model"]))
    storage = torch.ones(4).untyped_storage()
    typed = torch.storage.TypedStorage(wrap_storage=storage, dtype=torch.float32, _internal=True)
    hooks = OrderedDict({0: attack})
    reduced = Calls(rebuild._rebuild_tensor_v2, typed, 0, (4,), (1,), False, hooks)
    found["code in the hooks of a tensor"] = saved(changed(state, f"trainer/model/{weight}", reduced))
    found["code as the state of a dictionary"] = saved(
        changed(state, "config", Calls(OrderedDict, state={"a": attack}))
    )
    found["code as a key"] = saved({**state, "more": [(attack, 1)]})
    found["code instead of a state"] = saved(attack)
    found["code in a file of old torch"] = saved({**state, "more": attack}, as_zip=False)
    found["code in a tar of older torch"] = tar_of(pickle.dumps(attack, 2))
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        found[f"bare pickle {protocol}"] = pickle.dumps({**OrderedDict(format=1), "a": attack}, protocol)
        found[f"pickle {protocol} in a zip"] = with_pickle(state, pickle.dumps({"format": 1, "a": attack}, protocol))
    path = str(marker).encode()
    opcodes = {
        "INST": b"(V" + path + b"\nios\nmkdir\n.",
        "OBJ": b"(cos\nmkdir\nV" + path + b"\no.",
        "NEWOBJ_EX": b"\x80\x04cos\nmkdir\n(V" + path + b"\nt}\x92.",
        "STACK_GLOBAL": b"\x80\x04\x8c\x02os\x8c\x05mkdir\x93V" + path + b"\n\x85R.",
        "getattr": b"\x80\x02cbuiltins\ngetattr\n(cos\nmkdir\nV__call__\ntR(V" + path + b"\ntR.",
        "eval": b"cbuiltins\neval\n(V__import__('os').mkdir('" + path + b"')\ntR.",
        "exec by a name of torch": b"ctorch.serialization\nos.mkdir\n(V" + path + b"\ntR.",
        "torch.hub": b"ctorch.hub\nload\n(V" + path + b"\nVa\ntR.",
        "torch.load": b"ctorch\nload\n(V" + path + b"\ntR.",
        "numpy.load": b"cnumpy\nload\n(V" + path + b"\ntR.",
        "class of a tensor": b"\x80\x02ctorch._tensor\n_rebuild_from_type_v2\n(cos\nmkdir\ncos\nmkdir\n(V"
        + path
        + b"\nt}tR.",
    }
    found |= {f"opcode {name}": with_pickle(state, pickled) for name, pickled in opcodes.items()}
    found["TorchScript"] = script_archive()
    return found


def tar_of(pickled):
    """A file as torch wrote it before version 0.1.10."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            content = pickled
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def script_archive():
    """As `torch.jit.save` lays out a program; the program itself does not matter."""
    code_text = b"class Net(Module):\n  def forward(self, x: Tensor) -> Tensor:\n    return x\n"
    entries = [("data.pkl", pickle.dumps({}, 2)), ("code/__torch__.py", code_text), ("constants.pkl", b"\x80\x02).")]
    return archive([(f"archive/{name}", content) for name, content in [*entries, ("version", b"3\n")]])


# ------------------------------------------------------------------------------------------------ files that lie


def damaged_files(state):
    """Zip files whose directory, sizes or contents are not what they say: by kind, their bytes."""
    whole, entries = saved(state), parts(saved(state))
    zeros = bytes(300_000_000)
    names = [name for name, _ in entries]
    pickled = next(name for name in names if name.endswith("data.pkl"))
    storage = next(name for name in names if "/data/" in name)

    def replaced(name, content):
        return [(n, content if n == name else c) for n, c in entries]

    found = {
        "bomb in a tensor": archive(replaced(storage, zeros), compression=zipfile.ZIP_DEFLATED),
        "bomb in the pickle": archive(replaced(pickled, zeros), compression=zipfile.ZIP_DEFLATED),
        "compressed": archive(entries, compression=zipfile.ZIP_DEFLATED),
        "path out of the archive": archive([*entries, ("../../out", b"x"), ("/tmp/out", b"x")]),
        "no tensors": archive([(n, c) for n, c in entries if "/data/" not in n]),
        "a tensor's bytes are too few": archive(replaced(storage, b"abc")),
        "pickle that never ends": archive(replaced(pickled, pickle.dumps(dict(state, trainer=None))[:-1])),
        "pickle of nothing": archive(replaced(pickled, b".")),
        "pickle that reserves memory": archive(replaced(pickled, b"\x80\x02}r\xff\xff\xff\x7f.")),
        "pickle that announces a long text": archive(
            replaced(pickled, b"\x80\x04\x8d" + struct.pack("<Q", 2**40) + b"a.")
        ),
    }
    for name, offset, value in (("claims 4 GB", 24, 0xFFFFFFF0), ("claims 3 GB", 24, 3 << 30)):
        data = bytearray(whole)
        at = data.rfind(b"PK\x01\x02")
        for field in (offset, offset - 4):
            struct.pack_into("<I", data, at + field, value)
        found[f"directory {name}"] = bytes(data)
    data = bytearray(whole)
    first, second = [i for i in range(len(data) - 4) if data[i : i + 4] == b"PK\x01\x02"][:2]
    data[second + 42 : second + 46] = data[first + 42 : first + 46]
    found["two members at one place"] = bytes(data)
    return found


# ------------------------------------------------------------------------------------------------ odd values


class Odd(torch.nn.Parameter):
    """A class of tensors of its own."""


def quantized(shape):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch will do without them one day
        return torch.quantize_per_tensor(torch.ones(shape), 0.1, 0, torch.qint8)


def nested_pickle(state, depth):
    """A state with so many lists in each other; Python's own pickler cannot write it, a reader may read it."""
    pickled = b"\x80\x02}(X\x06\x00\x00\x00formatK\x01X\x06\x00\x00\x00config" + b"]" * depth + b"a" * (depth - 1)
    return with_pickle(state, pickled + b"u.")


def doubled(times):
    """A few lists that hold each other twice: 2 to the power of `times` items for whoever counts."""
    value = ["a"]
    for _ in range(times):
        value = [value, value]
    return value


def crafted_tensor(num_elements, shape, stride, offset=0):
    storage = torch.ones(num_elements).untyped_storage()
    typed = torch.storage.TypedStorage(wrap_storage=storage, dtype=torch.float32, _internal=True)
    return Calls(rebuild._rebuild_tensor_v2, typed, offset, shape, stride, False, OrderedDict())


def odd_weights(weight):
    """Tensors that are not what a weight is: by kind."""
    shape, numel = tuple(weight.shape), weight.numel()
    shared = torch.ones(numel)
    return {
        "of huge claimed shape": crafted_tensor(4, (10**6, 10**6), (0, 0)),
        "of strides outside of its storage": crafted_tensor(4, shape, (10**6, 1)),
        "before its storage": crafted_tensor(4, (4,), (1,), offset=-4),
        "of negative size": crafted_tensor(4, (-4,), (1,)),
        "of 2**62 rows": crafted_tensor(4, (2**62, 4), (0, 1)),
        "of one number shown often": torch.ones(1).expand(shape),
        "of overlapping rows": torch.ones(numel).as_strided(shape, (1, 1)) if len(shape) == 2 else shared,
        "sparse": torch.ones(shape).to_sparse(),
        "quantized": quantized(shape),
        "on no device": torch.empty(shape, device="meta"),
        "on no device and huge": torch.empty((10**9, 10**9), device="meta"),
        "of a class of its own": Odd(torch.ones(shape)),
        "complex": torch.ones(shape, dtype=torch.complex64),
        "of whole numbers": torch.ones(shape, dtype=torch.int64),
        "of bytes": torch.ones(shape, dtype=torch.uint8),
        "of another shape": torch.ones(3, 5, 7),
        "with no element": torch.ones(0),
        "NaN": torch.full(shape, float("nan")),
        "infinite": torch.full(shape, float("inf")),
        "a list": [[1.0] * 3] * 3,
        "a text": "weight",
        "nothing": None,
    }


def odd_states(state):
    """States of plain values that are not what they say: by kind, their bytes."""
    name, weight = next(iter(state["trainer"]["model"].items()))
    found = {
        f"weight {kind}": saved(changed(state, f"trainer/model/{name}", value))
        for kind, value in odd_weights(weight).items()
    }
    loop = []
    loop.append(loop)
    found |= {
        "lists in each other": nested_pickle(state, 100_000),
        "a list in itself": saved({**state, "more": loop}),
        "lists twice in each other": saved({**state, "more": doubled(40)}),
    }
    for place, values in ODD_VALUES.items():
        for i, value in enumerate(values):
            found[f"{place} {i}: {str(value)[:30]}"] = saved(changed(state, place, value))
    return found


_NAMES = tuple("0123456789")
ODD_VALUES = {
    "facts/class_names": [tuple(map(str, range(10**5 + 1))), (), "abcdefghij", ("a",) * 10, ("a" * 10**6, *_NAMES[1:])],
    "facts/class_counts": [(1, 2), "x", (-1,) * 10],
    "facts/statistics/std": [(0.0,), (float("nan"),), ("x",), (1.0,) * 5],
    "facts/preprocessing/image_size": [10**9, 0, -3, "x", 9],
    "facts/preprocessing/channels": [10**9, 7, None],
    "facts/preprocessing/resize": ["stretch out", 3],
    "facts/preprocessing/permute_pixels": [-1, "x"],
    "facts/appearance": [3, {}, {"low": (1.0,)}],
    "facts": [3, {}],
    "config/model/hidden": [[10**9] * 3, [32] * 10**5, [32] * 5_000, "x"],
    "config/model/_target_": ["os.system", "cvtrain.models.mlp.os", None],
    "config/loss/_target_": ["torch.nn.Module", "torch.nn.Linear"],
    "config/choices/model": ["../../out", "/out", "a\x1b[2J", 3],
    "config/choices": [3, {}],
    "config": [3, {}, None],
    "precision": ["x", 7],
    "trainer/model": [{}, 3, []],
    "trainer/average": [{"averages": 3}, {"averages": []}, 3],
    "trainer/step": ["x", -5, 1.5],
    "trainer": [3, {}],
    "format": [1.5, 2, "1"],
    "more": [10**400, "a" * 10**6],
}


def odd_for_resume(state):
    """States that only going on from them looks at."""
    places = {
        "trainer/optimizer/state/0/momentum_buffer": [torch.ones(3), torch.ones(1), torch.full((32, 64), float("nan"))],
        "trainer/optimizer/param_groups/0/lr": ["x", float("nan")],
        "trainer/optimizer/param_groups/0/momentum": [2.0],
        "trainer/optimizer": [3],
        "trainer/schedule": [3],
        "metrics_num_bytes": ["x"],
    }
    return {
        f"{place} {i}": saved(changed(state, place, value))
        for place, values in places.items()
        for i, value in enumerate(values)
    }


GONE_ON_WITH = {
    "circumstances": [3, {"torch": 3}, ["torch"]],
    "init_from": [3, "x"],
    "total_steps": ["x", -1, 1.5, True, None],
    "seconds": ["x", "1", -1.0, float("nan"), float("inf"), None],
    "metrics_num_bytes": ["x", -1, 1.0, True, 2**100, None],
    "metrics_sha256": [3, b"x"],
    "is_best": [1, "x", None],
    "last": [3, {}, {"step": "x", "epoch": 1.0}, {"step": 1, "epoch": 1.0, "val_loss": "x"}],
    "selection/best": [3, {}, {"step": -1, "epoch": 1.0}, {"step": 1, "epoch": 1.0, "val_loss": [1]}],
    "selection/num_waited": ["x", -1, None],
    "selection/reference": ["x", [1.0]],
    "diagnosis": [3, "x"],
    "trainer/step": ["x", -5, 1.5],
    "trainer/evaluated_at": ["x", -5, None],
    "trainer/sums/loss": ["x", None],
    "trainer/sums/num_images": ["x", -1],
    "trainer/sums/seconds": ["x", float("nan")],
    "trainer/num_parts": ["x", -1],
}
LATER = {"circumstances", "init_from", "metrics_sha256", "diagnosis", "trainer/num_parts"}
"""What checkpoints of earlier versions lack."""


def without(state, path):
    """A state that lacks the value at `a/b`."""
    state = copy.deepcopy(state)
    *keys, last = path.split("/")
    node = state
    for key in keys:
        node = node[key]
    del node[last]
    return state
