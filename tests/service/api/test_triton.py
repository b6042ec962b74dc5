"""The Open Inference Protocol, asked by NVIDIA's client over a real socket."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tritonclient.http as triton

from nnpm.service.settings import Settings
from tests.support.servers import live
from tests.support.sounds import speechlike
from tests.support.tiny_bundle import LABELS, WIDTH, classify, embed

CLIPS = [speechlike(0.5).astype(np.float32), speechlike(0.8, seed=1).astype(np.float32)]
LENGTHS = np.array([len(clip) for clip in CLIPS], np.int64)
WAVEFORM = np.stack([np.pad(clip, (0, LENGTHS.max() - len(clip))) for clip in CLIPS])


@pytest.fixture(scope="module")
def client(_two_versions: Path) -> Iterator[triton.InferenceServerClient]:
    with (
        live(Settings(models=_two_versions, workers=2)) as (address, _),
        triton.InferenceServerClient(address) as client,
    ):
        yield client


def inputs(*, binary: bool = True, waveform: np.ndarray = WAVEFORM) -> list[triton.InferInput]:
    made = [
        triton.InferInput("waveform", list(waveform.shape), "FP32"),
        triton.InferInput("lengths", list(LENGTHS.shape), "INT64"),
    ]
    made[0].set_data_from_numpy(waveform, binary_data=binary)
    made[1].set_data_from_numpy(LENGTHS, binary_data=binary)
    return made


def test_it_finds_the_server_and_its_model(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("default")
    assert client.is_model_ready("default", "1")
    assert not client.is_model_ready("nope")
    assert client.get_server_metadata()["name"] == "nnpm"
    found = client.get_model_metadata("default")
    assert found["name"] == "default"
    assert {tensor["name"]: tensor["datatype"] for tensor in found["inputs"]} == {
        "waveform": "FP32", "lengths": "INT64",
    }  # fmt: skip


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False, None])
def test_it_gets_what_the_network_says(
    client: triton.InferenceServerClient, binary_in: bool, binary_out: bool | None
) -> None:
    outputs = (
        None  # all, in the client's own way
        if binary_out is None
        else [
            triton.InferRequestedOutput(name, binary_data=binary_out)
            for name in ("embedding", "logits", "scores", "out_of_domain")
        ]
    )
    result = client.infer("default", inputs(binary=binary_in), outputs=outputs, request_id="7")
    embedding = np.stack([embed(clip) for clip in CLIPS])
    assert result.as_numpy("embedding") == pytest.approx(embedding, abs=1e-5)
    logits = result.as_numpy("logits")
    assert logits == pytest.approx(np.stack([classify(clip) for clip in CLIPS]), abs=1e-4)
    assert result.as_numpy("scores").shape == (2, len(LABELS))
    assert result.as_numpy("scores").sum(axis=1) == pytest.approx([1, 1], abs=1e-5)
    assert result.as_numpy("embedding").shape == (2, WIDTH)
    assert result.as_numpy("out_of_domain").shape == (2,)
    assert result.get_response()["id"] == "7"
    assert result.get_response()["model_version"] == "2"


def test_a_version_can_be_named(client: triton.InferenceServerClient) -> None:
    result = client.infer("default", inputs(), model_version="1")
    assert result.get_response()["model_version"] == "1"


def test_it_understands_our_errors(client: triton.InferenceServerClient) -> None:
    with pytest.raises(triton.InferenceServerException) as caught:
        client.infer("default", inputs(waveform=WAVEFORM * np.nan))
    assert caught.value.status() == "422"
    assert "magnitude nan" in caught.value.message()
    with pytest.raises(triton.InferenceServerException) as caught:
        client.infer("nope", inputs())
    assert caught.value.status() == "404"
    assert "nope" in caught.value.message()
    with pytest.raises(triton.InferenceServerException) as caught:
        client.infer("default", inputs(), request_compression_algorithm="gzip")
    assert caught.value.status() == "415"
    assert "uncompressed" in caught.value.message()
    with pytest.raises(triton.InferenceServerException) as caught:
        client.infer("default", inputs(), outputs=[triton.InferRequestedOutput("x")])
    assert "'x'" in caught.value.message()


def test_it_may_ask_for_a_compressed_answer_and_gets_a_plain_one(
    client: triton.InferenceServerClient,
) -> None:
    result = client.infer("default", inputs(), response_compression_algorithm="gzip")
    assert result.as_numpy("logits").shape == (2, len(LABELS))
