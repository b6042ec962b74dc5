"""/v2: the Open Inference Protocol, for clients of KServe, Triton and MLServer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from .... import __version__
from ...inference.audio.waveform import SAMPLE_RATE_HZ
from ...inference.card import DEFAULT_NAME
from ...inference.first_generation import FirstModel
from ...inference.graphs import Model
from ...predict.oip import (
    MAX_BODY_BYTES,
    InferAnswer,
    InferenceRequestError,
    InferRequest,
    Live,
    ModelMetadata,
    ModelReady,
    OutputTensor,
    Ready,
    RequestedOutput,
    ServerMetadata,
    TensorMetadata,
    Tensors,
    read_tensors,
)
from ...registry.serving import Route
from ..errors import NotReadyError
from ..forms import raw_body
from ..middleware.access import requires
from ..openapi import inference_problems
from ..services import Services, services_of

ALIASES = {"scores": "probabilities"}
"""What ``probabilities`` were called before the graph gave them."""


def outputs_of(model: Model | FirstModel) -> tuple[str, ...]:
    """Names of a model's outputs, aliases last."""
    return tuple(dict.fromkeys([*model.outputs, *ALIASES]))


@dataclass(frozen=True, slots=True)
class Reply:
    """The body of an answer, and the length of its JSON document if bytes follow it."""

    body: bytes
    header_length: int | None


def infer(route: Route, request: InferRequest, tensors: Tensors) -> Reply:
    """Answer a request.

    Args:
        route: the version that answers.
        request: which outputs, and in which form.
        tensors: the samples.

    Raises:
        InferenceRequestError: if the request names an unknown output.
    """
    model = route.recognizer.model
    wanted = _wanted(request, outputs_of(model))
    found = model.run(tensors.waveform, tensors.lengths)
    outputs, tails = [], []
    for name, binary in wanted.items():
        array = getattr(found, ALIASES.get(name, name))
        if not np.isfinite(array).all():
            raise InferenceRequestError(
                f"The graph's {name} are not finite numbers for this waveform; send samples from "
                "-1 to 1."
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
        model_name=route.model.name, model_version=route.model.version, outputs=outputs, **more
    )
    head = answer.model_dump_json(exclude_unset=True).encode()
    return Reply(b"".join([head, *tails]), len(head) if tails else None)


def _wanted(request: InferRequest, known: tuple[str, ...]) -> dict[str, bool]:
    """Return the name of each requested output, and whether to send it as bytes."""
    by_default = request.parameters.get("binary_data_output", False) is True
    outputs: Sequence[RequestedOutput] = request.outputs or [
        RequestedOutput(name=name) for name in known
    ]
    wanted: dict[str, bool] = {}
    for output in outputs:
        if output.name not in known or output.name in wanted:
            again = " twice" if output.name in wanted else ""
            raise InferenceRequestError(
                f"The request names the output {output.name!r}{again}; the outputs are "
                f"{', '.join(known)}, each once."
            )
        for extension in ("classification", "shared_memory_region"):
            if extension in output.parameters:
                raise InferenceRequestError(
                    f"The output {output.name!r} has the parameter {extension}, which is not "
                    "supported; leave it out."
                )
        wanted[output.name] = output.parameters.get("binary_data", by_default) is True
    return wanted


router = APIRouter(prefix="/v2", tags=["open inference protocol"])

TheServices = Annotated[Services, Depends(services_of)]
CanPredict = Depends(requires("predict"))
HEADER_LENGTH = "Inference-Header-Content-Length"


def _version(request: Request) -> str | None:
    """Dependency: the version in the path, if the path has one."""
    found: str | None = request.path_params.get("version")
    return found


# FastAPI would take a parameter of both paths for a query where the path lacks it.
Version = Annotated[str | None, Depends(_version)]
_WITH_VERSION: dict[str, Any] = {
    "parameters": [
        {"in": "path", "name": "version", "required": True, "schema": {"type": "string"}}
    ]
}


@router.get("")
async def server_metadata() -> ServerMetadata:
    """Return name, version and extensions of the server."""
    return ServerMetadata(name="nnpm", version=__version__, extensions=["binary_tensor_data"])


@router.get("/health/live")
async def server_live() -> Live:
    """Report that the process runs."""
    return Live()


@router.get("/health/ready", responses=inference_problems(503))
async def server_ready(services: TheServices) -> Ready:
    """Report whether the default model is loaded and has passed its golden probe."""
    _check_ready(services, DEFAULT_NAME)
    return Ready()


@router.get(
    "/models/{name}/ready", responses=inference_problems(404, 503), dependencies=[CanPredict]
)
@router.get(
    "/models/{name}/versions/{version}/ready",
    operation_id="version_ready",
    responses=inference_problems(404, 503),
    dependencies=[CanPredict],
    openapi_extra=_WITH_VERSION,
)
def model_ready(services: TheServices, name: str, version: Version) -> ModelReady:
    """Load a version unless it is loaded, and report that it can answer."""
    return ModelReady(name=_choose(services, name, version).model.name)


@router.get("/models/{name}", responses=inference_problems(404, 503), dependencies=[CanPredict])
@router.get(
    "/models/{name}/versions/{version}",
    operation_id="version_metadata",
    responses=inference_problems(404, 503),
    dependencies=[CanPredict],
    openapi_extra=_WITH_VERSION,
)
def model_metadata(services: TheServices, name: str, version: Version) -> ModelMetadata:
    """Describe the tensors of a version; without ``version``, of the one that answers."""
    route = _choose(services, name, version)
    model, labels = route.recognizer.model, list(route.recognizer.bundle.labels)
    one_each = [-1, len(labels)]
    shapes = {
        "probabilities": one_each,
        "out_of_domain": [-1],
        "embedding": [-1, model.width],
        "logits": one_each,
        "scores": one_each,
    }
    return ModelMetadata(
        name=name,
        versions=services.registry.versions(name) if version is None else [version],
        platform="onnxruntime_onnx",
        inputs=[
            TensorMetadata(name="waveform", datatype="FP32", shape=[-1, -1]),
            TensorMetadata(name="lengths", datatype="INT64", shape=[-1]),
        ],
        outputs=[
            TensorMetadata(name=output, datatype="FP32", shape=shapes[output])
            for output in outputs_of(model)
        ],
        parameters={
            "labels": labels,
            "sample_rate_hz": SAMPLE_RATE_HZ,
            "waveform": "samples from -1 to 1; rows are padded at their end to the same length",
            "lengths": "samples of each row that are not padding",
            "scores": "the probabilities that /predict computes for one window",
        },
    )


_INFER: dict[str, Any] = {
    "response_model": InferAnswer,
    "response_model_exclude_unset": True,
    "responses": inference_problems(404, 413, 415, 422, 500, 503),
    "dependencies": [CanPredict],
    "openapi_extra": {
        "parameters": [
            {
                "in": "header",
                "name": HEADER_LENGTH,
                "required": False,
                "description": "Bytes of the JSON document, if tensors follow it as bytes.",
                "schema": {"type": "integer"},
            }
        ],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {"$ref": "#/components/schemas/InferRequest"},
                },
                "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            },
        },
    },
}


@router.post("/models/{name}/infer", **_INFER)
@router.post(
    "/models/{name}/versions/{version}/infer",
    **_INFER
    | {
        "operation_id": "version_infer",
        "openapi_extra": _INFER["openapi_extra"]
        | {"parameters": _INFER["openapi_extra"]["parameters"] + _WITH_VERSION["parameters"]},
    },
)
async def model_infer(
    request: Request, services: TheServices, name: str, version: Version
) -> Response:
    """Score rows of samples at 16 kHz, each as one window.

    Nothing is decoded or trimmed, and the model does not abstain: silence gets scores, too.
    """
    if version is None:
        _check_ready(services, name)
    services.pool.check()
    async with raw_body(request, max_bytes=MAX_BODY_BYTES) as file:

        def job(_: float) -> Reply:
            inference, tensors = read_tensors(file.read(), request.headers.get(HEADER_LENGTH))
            reply = infer(_choose(services, name, version), inference, tensors)
            services.metrics.scored(tensors.lengths.sum() / SAMPLE_RATE_HZ)
            return reply

        reply = await services.pool.run(job)
    if reply.header_length is None:
        return Response(reply.body, media_type="application/json")
    headers = {HEADER_LENGTH: str(reply.header_length)}
    return Response(reply.body, headers=headers, media_type="application/octet-stream")


def _choose(services: Services, name: str, version: str | None) -> Route:
    return services.serving.choose(name if version is None else f"{name}/{version}")


def _check_ready(services: Services, name: str) -> None:
    if name == DEFAULT_NAME and not services.readiness.ready:
        raise NotReadyError(services.readiness.obstacle)
