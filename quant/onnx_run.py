"""Graphs in ONNX Runtime, on CPUs."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from bitfront.errors import ExportError

from .export_onnx import tensors_size

if TYPE_CHECKING:
    from onnx import ModelProto


LARGEST = 1 << 30  # bytes of tensors in one message, of which protobuf takes up to 2 GiB


class Session:
    """A loaded graph. model: a file, or a graph, which is given up to it. threads: of one operator.

    Raises ``ExportError`` where ONNX Runtime is not installed, or does not take the graph.
    """

    def __init__(self, model: Path | ModelProto, threads: int) -> None:
        try:
            import onnxruntime as ort
        except ImportError as error:
            raise ExportError(
                "onnxruntime is not installed", "pip install 'bitfront[onnx]'"
            ) from error
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors
        with _source(model) as source:
            try:
                self._session = ort.InferenceSession(
                    source, options, providers=["CPUExecutionProvider"]
                )
            except Exception as error:  # of its own classes, which it does not document
                raise ExportError(
                    f"ONNX Runtime does not load it: {str(error).splitlines()[0]}",
                    "export it again, or choose other schemes",
                ) from error

    @property
    def inputs(self) -> list[str]:
        """Names, in order."""
        return [x.name for x in self._session.get_inputs()]

    @property
    def outputs(self) -> list[str]:
        """Names, in order."""
        return [y.name for y in self._session.get_outputs()]

    def varying_samples(self) -> list[str]:
        """Names of the inputs whose first size may vary."""
        inputs = self._session.get_inputs()
        return [x.name for x in inputs if x.shape and not isinstance(x.shape[0], int)]

    def bound(self, inputs: Mapping[str, Tensor]) -> Callable[[], object]:
        """A call on ``inputs`` that copies nothing in or out, to be timed.

        Raises ``ExportError`` where the runtime fails on them.
        """
        self(inputs)
        binding = self._session.io_binding()
        for name, x in inputs.items():
            binding.bind_cpu_input(name, x.detach().cpu().contiguous().numpy())
        for y in self._session.get_outputs():
            binding.bind_output(y.name)

        def run() -> None:
            self._session.run_with_iobinding(binding)

        return run

    def __call__(self, inputs: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """The outputs, in order. Raises ``ExportError`` where the runtime fails."""
        given = {name: x.detach().cpu().numpy() for name, x in inputs.items()}
        try:
            found = self._session.run(None, given)
        except Exception as error:
            raise ExportError(
                f"ONNX Runtime fails: {str(error).splitlines()[0]}",
                "give inputs of the sizes that it was traced with",
            ) from error
        return tuple(torch.from_numpy(y) for y in found)


@contextmanager
def _source(model: Path | ModelProto) -> Iterator[Any]:
    """What ONNX Runtime loads: bytes, or a file, with the tensors of a large graph beside it."""
    if isinstance(model, Path):
        yield str(model)
    elif tensors_size(model) <= LARGEST:  # ByteSize would make all of the message
        yield model.SerializeToString()
    else:
        import onnx

        with tempfile.TemporaryDirectory(prefix="bitfront-graph-") as name:
            path = Path(name) / "model.onnx"
            onnx.save_model(model, path, save_as_external_data=True, location="data")
            yield str(path)
