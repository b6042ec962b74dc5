"""The Open Inference Protocol: its documents, and a request's bytes as checked tensors."""

import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, StrictInt, ValidationError

from ..inference.audio.waveform import SAMPLE_RATE_HZ
from ..inference.errors import NnpmError, validation_detail

Name = Annotated[str, Field(max_length=64)]
Parameters = dict[str, Any]


class InferenceRequestError(NnpmError):
    """A request of the Open Inference Protocol that cannot be used."""

    status, code, detail = 422, "bad_inference_request", None
    title = "Invalid inference request"


class _Document(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True, protected_namespaces=())


class InputTensor(_Document):
    """One tensor of a request."""

    name: Name
    datatype: Name
    shape: Annotated[list[StrictInt], Field(max_length=8)]
    parameters: Parameters = {}
    """``binary_data_size``: bytes of the tensor after the JSON document, in place of ``data``."""
    data: Any = None
    """Row by row, nested or flat."""


class RequestedOutput(_Document):
    """One tensor of the answer."""

    name: Name
    parameters: Parameters = {}
    """``binary_data``: true for bytes after the JSON document."""


class InferRequest(_Document):
    """The body of POST .../infer."""

    id: Annotated[str, Field(max_length=256)] | None = None
    """Returned with the answer."""
    parameters: Parameters = {}
    """``binary_data_output``: the default of the outputs' ``binary_data``."""
    inputs: Annotated[list[InputTensor], Field(max_length=8)]
    outputs: Annotated[list[RequestedOutput], Field(max_length=8)] = []
    """All outputs, if the list is empty."""


class OutputTensor(_Document):
    """One tensor of an answer."""

    name: str
    datatype: Literal["FP32"]
    shape: list[int]
    parameters: Parameters = {}
    data: list[float] = []


class InferAnswer(_Document):
    """The answer of POST .../infer."""

    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[OutputTensor]


class ServerMetadata(_Document):
    """Name, version and extensions of the server."""

    name: str
    version: str
    extensions: list[str]


class Live(_Document):
    """The process runs."""

    live: Literal[True] = True


class Ready(_Document):
    """The default model is loaded."""

    ready: Literal[True] = True


class ModelReady(Ready):
    """The model can answer."""

    name: str


class TensorMetadata(_Document):
    """One input or output; -1 stands for any size."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(_Document):
    """Inputs and outputs of a model."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]
    parameters: Parameters
    """The emotions in the order of the outputs, and what each tensor holds."""


MAX_ROWS = 64
"""Most recordings of one request."""

MAX_ROW_S = 60
"""Most seconds of one recording, padding included: a row is scored as one window."""

MAX_TOTAL_S = 120
"""Most seconds of all rows together, padding included."""

MIN_ROW_S = 0.1

MAX_PEAK = 2.0
"""Largest magnitude of a sample. Resamplers overshoot 1; 16-bit integers are far above."""

MAX_BODY_BYTES = 8 * 1024**2
"""Largest request: 120 s as bytes, or about 25 s as JSON."""

_MIN_SAMPLES = round(MIN_ROW_S * SAMPLE_RATE_HZ)
_DATATYPES = {"waveform": ("FP32", "<f4"), "lengths": ("INT64", "<i8")}


@dataclass(frozen=True, slots=True, eq=False)
class Tensors:
    """The inputs of the graph.

    Attributes:
        waveform: float32, finite, shape ``(rows, samples)``.
        lengths: samples of each row that are not padding, shape ``(rows,)``.
    """

    waveform: NDArray[np.float32]
    lengths: NDArray[np.int64]


def read_tensors(body: bytes, header_length: str | None) -> tuple[InferRequest, Tensors]:
    """Read a request.

    Args:
        body: the JSON document, and the bytes of tensors after it.
        header_length: ``Inference-Header-Content-Length``: bytes of the JSON document; None: the
            whole body.

    Raises:
        InferenceRequestError: if the document or a tensor is invalid.
    """
    end = len(body) if header_length is None else _header_bytes(header_length, len(body))
    try:
        request = InferRequest.model_validate_json(body[:end])
    except ValidationError as error:
        detail = validation_detail(error.errors(), document="The JSON document", limit=4)
        raise InferenceRequestError(detail) from None
    arrays: dict[str, NDArray[Any]] = {}
    for tensor in request.inputs:
        if tensor.name in arrays or tensor.name not in _DATATYPES:
            again = " twice" if tensor.name in arrays else ""
            raise InferenceRequestError(
                f"The request has the input {tensor.name!r}{again}; send waveform and lengths, "
                "each once."
            )
        _check_shape(tensor)
        size = tensor.parameters.get("binary_data_size")
        if size is None:
            arrays[tensor.name] = _of_json(tensor)
        else:
            arrays[tensor.name] = _of_bytes(tensor, size, memoryview(body)[end:])
            end += arrays[tensor.name].nbytes
    if missing := _DATATYPES.keys() - arrays.keys():
        raise InferenceRequestError(
            f"The input {min(missing)!r} is missing; send waveform and lengths."
        )
    if end != len(body):
        raise InferenceRequestError(
            f"{len(body) - end} bytes follow the last tensor; no bytes may follow it."
        )
    tensors = Tensors(arrays["waveform"], arrays["lengths"])
    _check_content(tensors)
    return request, tensors


def _header_bytes(text: str, body_bytes: int) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 20 and int(text) <= body_bytes):
        raise InferenceRequestError(
            f"Inference-Header-Content-Length is {text[:32]!r}; it must be between 0 and "
            f"{body_bytes}, the bytes of the body."
        )
    return int(text)


def _check_shape(tensor: InputTensor) -> None:
    name, shape = tensor.name, tensor.shape
    wanted, _ = _DATATYPES[name]
    if tensor.datatype != wanted:
        raise InferenceRequestError(
            f"{name} has the datatype {tensor.datatype!r}; it must be {wanted}."
        )
    rank = 2 if name == "waveform" else 1
    if len(shape) != rank or min(shape) < 1:
        axes = "[rows, samples]" if rank == 2 else "[rows]"
        raise InferenceRequestError(
            f"{name} has the shape {_short(shape)}; it must be {axes}, with 1 or more of each."
        )
    if shape[0] > MAX_ROWS:
        raise InferenceRequestError(
            f"{name} has {_short(shape[0])} rows; at most {MAX_ROWS} are accepted in one request."
        )
    if rank == 2:
        most = min(MAX_ROW_S * SAMPLE_RATE_HZ, MAX_TOTAL_S * SAMPLE_RATE_HZ // shape[0])
        if shape[1] > most:
            raise InferenceRequestError(
                f"waveform has {_short(shape[1])} samples in each of {shape[0]} rows; at most "
                f"{most} are accepted ({MAX_ROW_S} s per row, {MAX_TOTAL_S} s in all)."
            )
    if "shared_memory_region" in tensor.parameters:
        raise InferenceRequestError(
            f"{name} is in shared memory, which is not supported; send its data."
        )


def _of_json(tensor: InputTensor) -> NDArray[Any]:
    name, count = tensor.name, math.prod(tensor.shape)
    if not isinstance(tensor.data, list):
        raise InferenceRequestError(
            f"{name} has no data; send a list 'data', or bytes and their 'binary_data_size'."
        )
    kinds, what = ("iuf", "numbers") if name == "waveform" else ("iu", "integers")
    try:
        array = np.asarray(tensor.data)
    except (ValueError, OverflowError, RecursionError):
        raise InferenceRequestError(f"The data of {name} must be {count} {what}.") from None
    if array.dtype.kind not in kinds:
        raise InferenceRequestError(f"The data of {name} must be {what} only.")
    if array.shape not in (tuple(tensor.shape), (count,)):
        raise InferenceRequestError(
            f"The data of {name} have the shape {list(array.shape)}; they must have its shape "
            f"{tensor.shape}, or be a flat list of {count} {what}."
        )
    with np.errstate(over="ignore"):  # what overflows is infinite, and refused as such
        return array.astype(_DATATYPES[name][1]).reshape(tensor.shape)


def _of_bytes(tensor: InputTensor, size: Any, rest: memoryview) -> NDArray[Any]:
    dtype = np.dtype(_DATATYPES[tensor.name][1])
    wanted = math.prod(tensor.shape) * dtype.itemsize
    if size != wanted or isinstance(size, bool):
        raise InferenceRequestError(
            f"binary_data_size of {tensor.name} is {_short(size)}; it must be {wanted} for the "
            f"shape {tensor.shape}."
        )
    if tensor.data is not None:
        raise InferenceRequestError(
            f"{tensor.name} has both data and binary_data_size; send one of them."
        )
    if len(rest) < wanted:
        raise InferenceRequestError(
            f"{len(rest)} bytes are left in the body for {tensor.name}, which has {wanted}; "
            "Inference-Header-Content-Length must be the length of the JSON document."
        )
    return np.frombuffer(rest[:wanted], dtype).astype(dtype.newbyteorder("=")).reshape(tensor.shape)


def _check_content(tensors: Tensors) -> None:
    waveform, lengths = tensors.waveform, tensors.lengths
    rows, samples = waveform.shape
    if len(lengths) != rows:
        raise InferenceRequestError(
            f"lengths has {len(lengths)} rows and waveform has {rows}; both must have the same."
        )
    for row, length in enumerate(lengths.tolist()):
        if not _MIN_SAMPLES <= length <= samples:
            raise InferenceRequestError(
                f"lengths[{row}] is {length}; it must be between {_MIN_SAMPLES} ({MIN_ROW_S} s at "
                f"{SAMPLE_RATE_HZ} Hz) and {samples}, the samples of waveform."
            )
        peak = float(np.abs(waveform[row]).max())
        if not peak <= MAX_PEAK:  # also if it is nan
            raise InferenceRequestError(
                f"waveform[{row}] has a sample of magnitude {peak:.6g}; samples must be finite "
                "numbers from -1 to 1: divide 16-bit integers by 32768."
            )


def _short(number: Any) -> str:
    text = str(number)
    return text if len(text) <= 40 else f"{text[:37]}..."
