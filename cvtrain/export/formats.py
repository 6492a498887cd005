"""The formats: how each becomes bytes, and how its own runtime reads them back.

Knows models and libraries, not where files go. Libraries are loaded when a format is used.
"""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from cvtrain.errors import ConfigError
from cvtrain.export.exported_model import ExportedModel

METADATA_KEY = "cvtrain"
"""Under which every format holds the description, as JSON."""
MAX_ONNX_BYTES = 2**31 - 2**24
"""Of weights: an ONNX file is one protobuf message, which ends at 2 GiB; some of it is for the graph."""

OPSET = 20
"""Of ONNX files, whatever the version of torch prefers; onnxruntime reads it from 1.17 on."""

Answer = Callable[[Tensor], Tensor]
"""Inputs to probabilities, both float32 on the CPU."""


@dataclass(frozen=True)
class Format:
    """One kind of file.

    Args:
        suffix: Of its files.
        holds: What is in them, in a few words.
        packages: What it needs beyond the core.
        to_bytes: The file of a model and its description.
        open: A model as the format's own runtime reads it; the model is there for formats that hold no graph.
    """

    suffix: str
    holds: str
    packages: tuple[str, ...]
    to_bytes: Callable[[ExportedModel, str], bytes]
    open: Callable[[Path, ExportedModel], Answer]

    def missing_packages(self) -> list[str]:
        """Those that are not installed."""
        return [package for package in self.packages if importlib.util.find_spec(package) is None]


# ------------------------------------------------------------------------------------------------------ ONNX


def _onnx_bytes(exported: ExportedModel, description: str) -> bytes:
    num_bytes = sum(tensor.nbytes for tensor in (*exported.parameters(), *exported.buffers()))
    if num_bytes > MAX_ONNX_BYTES:
        raise ConfigError(
            f"format=onnx holds 2 GB in one file, and this model has {num_bytes / 1e9:.1f} GB of weights",
            hint="type format=torch_export or format=safetensors",
        )
    with _quiet():
        made = torch.onnx.export(
            exported.program(),
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=[exported.input_name],
            output_names=["probabilities"],
            dynamic_shapes=({0: "N"},),
        )
    assert made is not None, "an export without a file name returns the model"
    for node in made.model.graph.all_nodes():
        node.metadata_props.clear()  # names of our own modules, and of the files on this machine that they stand in
    made.model.metadata_props[METADATA_KEY] = description
    return made.model_proto.SerializeToString()


def _open_onnx(path: Path, exported: ExportedModel) -> Answer:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = exported.input_name
    return lambda inputs: torch.from_numpy(session.run(["probabilities"], {name: inputs.numpy()})[0])


# ----------------------------------------------------------------------------------------------- torch.export


def _torch_export_bytes(exported: ExportedModel, description: str) -> bytes:
    buffer = io.BytesIO()
    with _quiet():
        torch.export.save(exported.program(), buffer, extra_files={f"{METADATA_KEY}.json": description})
    return buffer.getvalue()


def _open_torch_export(path: Path, _exported: ExportedModel) -> Answer:
    with _quiet():
        return torch.export.load(str(path)).module()


# ----------------------------------------------------------------------------------------------- safetensors


def _safetensors_bytes(exported: ExportedModel, description: str) -> bytes:
    from safetensors.torch import save

    # Copies: a tensor that stands under two names is written under both, for `load_state_dict` asks for both.
    tensors = {name: tensor.contiguous().clone() for name, tensor in exported.model.state_dict().items()}
    return save(tensors, metadata={METADATA_KEY: description})


def _open_safetensors(path: Path, exported: ExportedModel) -> Answer:
    """The weights of the file in an empty copy of the model."""
    from safetensors.torch import load_file

    empty = copy.deepcopy(exported)
    for tensor in empty.model.state_dict().values():
        tensor.zero_()
    empty.model.load_state_dict(load_file(path))
    return empty


FORMATS = {
    "onnx": Format(
        ".onnx", f"graph and weights, opset {OPSET}", ("onnx", "onnxscript", "onnxruntime"), _onnx_bytes, _open_onnx
    ),
    "torch_export": Format(".pt2", "graph and weights", (), _torch_export_bytes, _open_torch_export),
    "safetensors": Format(".safetensors", "weights alone", (), _safetensors_bytes, _open_safetensors),
}
"""By the word that is typed."""


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Lets exporters keep their remarks on operators, versions and themselves: the check decides, not they."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
