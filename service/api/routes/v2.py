"""/v2: the Open Inference Protocol, so that clients of KServe, Triton and MLServer work."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from service import __version__
from service.api.auth import requires
from service.api.body import raw_body
from service.api.errors import BodyEncodingError, NotReadyError
from service.api.oip.answer import Reply, infer
from service.api.oip.schemas import (
    InferAnswer,
    Live,
    ModelMetadata,
    ModelReady,
    Ready,
    ServerMetadata,
    TensorMetadata,
)
from service.api.oip.tensors import MAX_BODY_BYTES, read
from service.api.openapi import inference_problems
from service.api.services import Services, services_of
from service.inference.audio import SAMPLE_RATE_HZ
from service.registry.registry import DEFAULT_NAME
from service.registry.serving import Chosen

router = APIRouter(prefix="/v2", tags=["open inference protocol"])

TheServices = Annotated[Services, Depends(services_of)]
Readers = Depends(requires("predict"))
HEADER_LENGTH = "Inference-Header-Content-Length"


@router.get("")
async def server_metadata() -> ServerMetadata:
    """Say what the server is."""
    return ServerMetadata(name="nnpm", version=__version__, extensions=["binary_tensor_data"])


@router.get("/health/live")
async def server_live() -> Live:
    """Say that the process is up."""
    return Live()


@router.get("/health/ready", responses=inference_problems(503))
async def server_ready(services: TheServices) -> Ready:
    """Say that the default model is loaded and has passed its golden probe."""
    _check_ready(services, DEFAULT_NAME)
    return Ready()


@router.get("/models/{name}/ready", responses=inference_problems(404, 503), dependencies=[Readers])
@router.get(
    "/models/{name}/versions/{version}/ready",
    responses=inference_problems(404, 503),
    dependencies=[Readers],
)
def model_ready(services: TheServices, name: str, version: str | None = None) -> ModelReady:
    """Load a version if need be, and say that it can answer."""
    return ModelReady(name=_choose(services, name, version).model.name)


@router.get("/models/{name}", responses=inference_problems(404, 503), dependencies=[Readers])
@router.get(
    "/models/{name}/versions/{version}",
    responses=inference_problems(404, 503),
    dependencies=[Readers],
)
def model_metadata(services: TheServices, name: str, version: str | None = None) -> ModelMetadata:
    """Describe the tensors of a version; without one, of the version that answers."""
    chosen = _choose(services, name, version)
    labels = list(chosen.recognizer.bundle.labels)
    sizes = {
        "logits": len(labels),
        "embedding": chosen.recognizer.model.width,
        "scores": len(labels),
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
            TensorMetadata(name=output, datatype="FP32", shape=[-1, size])
            for output, size in sizes.items()
        ],
        parameters={
            "labels": labels,
            "sample_rate_hz": SAMPLE_RATE_HZ,
            "waveform": "samples from -1 to 1; rows are padded at their end to the same length",
            "lengths": "samples of each row that are not padding",
            "scores": "probabilities as /predict makes them of one window; logits and embedding "
            "are the graph's own",
        },
    )


INFER: dict[str, Any] = {
    "response_model": InferAnswer,
    "response_model_exclude_unset": True,
    "responses": inference_problems(404, 413, 415, 422, 500, 503),
    "dependencies": [Readers],
    "openapi_extra": {
        "parameters": [
            {
                "in": "header",
                "name": HEADER_LENGTH,
                "description": "Bytes of the JSON document, where bytes of tensors follow it.",
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


@router.post("/models/{name}/infer", **INFER)
@router.post("/models/{name}/versions/{version}/infer", **INFER)
async def model_infer(
    request: Request, services: TheServices, name: str, version: str | None = None
) -> Response:
    """Score rows of samples at 16 kHz, each as one window, as they are.

    Nothing is decoded, trimmed or judged here: silence gets scores like anything else.
    """
    encoding = request.headers.get("content-encoding", "identity")
    if encoding != "identity":
        raise BodyEncodingError(
            f"Content-Encoding {encoding[:32]!r}; send the tensors uncompressed."
        )
    if version is None:
        _check_ready(services, name)
    services.executor.check()
    async with raw_body(request, max_bytes=MAX_BODY_BYTES) as file:

        def job(_: float) -> Reply:
            asked, tensors = read(file.read(), request.headers.get(HEADER_LENGTH))
            reply = infer(_choose(services, name, version), asked, tensors)
            services.metrics.heard(tensors.lengths.sum() / SAMPLE_RATE_HZ)
            return reply

        reply = await services.executor.run(job)
    if reply.header_length is None:
        return Response(reply.body, media_type="application/json")
    headers = {HEADER_LENGTH: str(reply.header_length)}
    return Response(reply.body, headers=headers, media_type="application/octet-stream")


def _choose(services: Services, name: str, version: str | None) -> Chosen:
    return services.serving.choose(name if version is None else f"{name}/{version}")


def _check_ready(services: Services, name: str) -> None:
    if name == DEFAULT_NAME and not services.readiness.ready:
        raise NotReadyError(services.readiness.obstacle)
