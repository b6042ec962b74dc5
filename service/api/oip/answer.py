"""What the graph says of tensors, as JSON and bytes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.api.errors import InferenceRequestError
from service.api.oip.schemas import InferAnswer, InferRequest, OutputTensor, RequestedOutput
from service.api.oip.tensors import Tensors
from service.inference.model import Floats
from service.inference.recognizer import Recognizer
from service.registry.serving import Chosen

OUTPUTS = ("logits", "embedding", "scores")
"""What the graph gives, and the probabilities that are made of it."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A body, and the length of its JSON document if bytes follow it."""

    body: bytes
    header_length: int | None


def infer(chosen: Chosen, request: InferRequest, tensors: Tensors) -> Reply:
    """Answer a request.

    Args:
        chosen: the version that answers.
        request: which outputs, and how.
        tensors: what was heard.

    Raises:
        InferenceRequestError: if outputs were asked for that there are not.
    """
    wanted = _wanted(request)
    arrays = _score(chosen.recognizer, tensors, with_scores="scores" in wanted)
    outputs, tails = [], []
    for name, binary in wanted.items():
        array = arrays[name]
        if not np.isfinite(array).all():
            raise InferenceRequestError(
                f"The graph's {name} are not finite numbers for this waveform; samples from -1 to "
                "1 are wanted."
            )
        how = OutputTensor(name=name, datatype="FP32", shape=list(array.shape))
        if binary:
            tails.append(array.astype("<f4").tobytes())
            how.parameters = {"binary_data_size": len(tails[-1])}
        else:
            how.data = array.ravel().tolist()
        outputs.append(how)
    more = {} if request.id is None else {"id": request.id}
    answer = InferAnswer(
        model_name=chosen.model.name, model_version=chosen.model.version, outputs=outputs, **more
    )
    head = answer.model_dump_json(exclude_unset=True).encode()
    return Reply(b"".join([head, *tails]), len(head) if tails else None)


def _wanted(request: InferRequest) -> dict[str, bool]:
    """Name of each output that is wanted, and whether as bytes."""
    by_default = request.parameters.get("binary_data_output", False) is True
    outputs: Sequence[RequestedOutput] = request.outputs or [
        RequestedOutput(name=name) for name in OUTPUTS
    ]
    wanted: dict[str, bool] = {}
    for output in outputs:
        if output.name not in OUTPUTS or output.name in wanted:
            again = " twice" if output.name in wanted else ""
            raise InferenceRequestError(
                f"The output {output.name!r} was asked for{again}; there are {', '.join(OUTPUTS)}."
            )
        for extension in ("classification", "shared_memory_region"):
            if extension in output.parameters:
                raise InferenceRequestError(
                    f"The output {output.name!r} was asked for with {extension}, which is not "
                    "supported."
                )
        wanted[output.name] = output.parameters.get("binary_data", by_default) is True
    return wanted


def _score(recognizer: Recognizer, tensors: Tensors, *, with_scores: bool) -> dict[str, Floats]:
    """Row by row: padding tells nothing, and no request needs more than one row does."""
    rows: list[tuple[Floats, Floats]] = []
    for waveform, length in zip(tensors.waveform, tensors.lengths, strict=True):
        logits, embedding = recognizer.model.run(
            waveform[None, :length], np.array([length], np.int64)
        )
        rows.append((logits, embedding))
    arrays: dict[str, NDArray[np.float32]] = {
        "logits": np.concatenate([logits for logits, _ in rows]),
        "embedding": np.concatenate([embedding for _, embedding in rows]),
    }
    if with_scores:
        projection = recognizer.model.project(arrays["embedding"])
        arrays["scores"] = recognizer.decide(arrays["logits"], projection)
    return arrays
