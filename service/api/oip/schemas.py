"""The documents of the protocol."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictInt

Name = Annotated[str, Field(max_length=64)]
Parameters = dict[str, Any]


class _Document(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True, protected_namespaces=())


class InputTensor(_Document):
    """One tensor of a request."""

    name: Name
    datatype: Name
    shape: Annotated[list[StrictInt], Field(max_length=8)]
    parameters: Parameters = {}
    """``binary_data_size``: bytes of the tensor behind the JSON document, instead of ``data``."""
    data: Any = None
    """Row by row, nested or flat."""


class RequestedOutput(_Document):
    """One tensor of the answer."""

    name: Name
    parameters: Parameters = {}
    """``binary_data``: whether it shall follow the JSON document as bytes."""


class InferRequest(_Document):
    """What POST .../infer takes."""

    id: Annotated[str, Field(max_length=256)] | None = None
    """Comes back with the answer."""
    parameters: Parameters = {}
    """``binary_data_output``: ``binary_data`` of all outputs that do not say otherwise."""
    inputs: Annotated[list[InputTensor], Field(max_length=8)]
    outputs: Annotated[list[RequestedOutput], Field(max_length=8)] = []
    """All of them, if none is named."""


class OutputTensor(_Document):
    """One tensor of an answer."""

    name: str
    datatype: Literal["FP32"]
    shape: list[int]
    parameters: Parameters = {}
    data: list[float] = []


class InferAnswer(_Document):
    """What POST .../infer gives."""

    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[OutputTensor]


class ServerMetadata(_Document):
    """What the server is."""

    name: str
    version: str
    extensions: list[str]


class Live(_Document):
    """The process is up."""

    live: Literal[True] = True


class Ready(_Document):
    """The default model is loaded."""

    ready: Literal[True] = True


class ModelReady(Ready):
    """A model can answer."""

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
    """The emotions in the order of ``logits`` and ``scores``, and what the tensors have to be."""
