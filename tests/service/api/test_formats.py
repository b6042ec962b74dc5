"""The formats of answers over HTTP: tables, annotations, digits."""

import io
import json
import sys
from decimal import Decimal

import numpy as np
import pandas
import pytest
from fastapi.testclient import TestClient

from nnpm.service.predict.tables import FORMATS
from tests.support.problems import problem
from tests.support.sounds import encode, speechlike
from tests.support.tiny_bundle import LABELS

pytestmark = pytest.mark.smoke

NAME = "gespräch 1.wav"


@pytest.fixture(scope="module")
def call() -> bytes:
    speech, pause = speechlike(4), np.zeros(4 * 16_000)
    return encode(np.stack([np.append(speech, pause), np.append(pause, speech)], axis=1))


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_is_a_download(client: TestClient, clip: bytes, name: str) -> None:
    form = FORMATS[name]
    response = client.post("/predict", params={"format": name}, files={"file": (NAME, clip)})
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].partition(";")[0] == form.media_type
    assert response.headers["content-disposition"] == (
        f"attachment; filename*=UTF-8''gespr%C3%A4ch%201{form.suffix}"
    )
    assert response.headers["vary"] == "Accept"
    if form.media_type != "text/plain":
        accepted = client.post(
            "/predict", headers={"Accept": form.media_type}, files={"file": (NAME, clip)}
        )
        assert accepted.headers["content-type"] == response.headers["content-type"]


@pytest.mark.parametrize(
    ("accept", "name"),
    [
        ("*/*", None), ("application/json", None), ("text/html,*/*;q=0.8", None),
        ("text/plain", None), ("text/csv;q=0.5, application/json", None), ("text/csv;q=0", None),
        ("text/csv;q=x", None), ("text/html, TEXT/CSV;q=0.9, */*;q=0.1", "csv"),
        ("application/jsonl", "jsonl"), (",;q=,", None),
    ],
)  # fmt: skip
def test_accept_chooses_where_no_parameter_does(
    client: TestClient, clip: bytes, accept: str, name: str | None
) -> None:
    response = client.post("/predict", headers={"Accept": accept}, files={"file": clip})
    media_type = "application/json" if name is None else FORMATS[name].media_type
    assert response.headers["content-type"].partition(";")[0] == media_type
    json_wins = client.post(
        "/predict?format=json", headers={"Accept": accept}, files={"file": clip}
    )
    assert json_wins.headers["content-type"] == "application/json"
    assert "content-disposition" not in json_wins.headers


def test_levels_of_a_table_agree_with_the_json(client: TestClient, call: bytes) -> None:
    def post(**query: str) -> bytes:
        files = {"file": (NAME, call)}
        return client.post("/predict", params={"channels": "split", **query}, files=files).content

    answer = json.loads(post())
    for level, parts in {
        "recording": [answer], "channel": answer["per_channel"], "segment": answer["segments"]
    }.items():  # fmt: skip
        table = pandas.read_csv(io.BytesIO(post(format="csv", level=level)))
        assert len(table) == len(parts)
        assert set(table["file"]) == {NAME}
        for label in LABELS:
            assert list(table[f"score_{label}"]) == [part["scores"][label] for part in parts]


def test_a_batch_is_one_table(client: TestClient, clip: bytes) -> None:
    files = [("files", (name, data)) for name, data in (("a.wav", clip), ("b.txt", b"no audio"))]
    response = client.post("/predict/batch?format=csv", files=files)
    assert "filename*=UTF-8''answers.csv" in response.headers["content-disposition"]
    table = pandas.read_csv(io.BytesIO(response.content))
    assert list(table["file"]) == ["a.wav", "b.txt"]
    assert list(table["error"].fillna("")) == ["", "not_audio"]
    only_bad = client.post("/predict/batch?format=csv", files=files[1:])
    assert list(pandas.read_csv(io.BytesIO(only_bad.content)).columns) == list(table.columns)
    lines = client.post("/predict/batch?format=rttm&abstain=false", files=files).text.splitlines()
    assert [line.split()[1] for line in lines] == ["a"]


def test_fields_of_the_form_are_parameters(client: TestClient, clip: bytes) -> None:
    fields = {"format": "csv", "level": "segment", "digits": "2"}
    response = client.post("/predict", data=fields, files={"file": (NAME, clip)})
    table = pandas.read_csv(io.BytesIO(response.content))
    assert (table["file"] == NAME).all()
    assert (table["confidence"] == table["confidence"].round(2)).all()
    vtt = client.post("/predict/batch", data={"format": "vtt"}, files={"files": clip})
    problem(vtt, 422, "bad_parameter")


def test_refusals_are_problems(
    client: TestClient, clip: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = {"file": clip}
    bad = client.post("/predict?format=xml", files=file)
    assert "format is 'xml'; it must be json, csv" in problem(bad, 422, "bad_parameter")["detail"]
    level = client.post("/predict?format=csv&level=word", files=file)
    assert "level is word" in problem(level, 422, "bad_parameter")["detail"]
    digits = client.post("/predict?digits=10", files=file)
    assert "digits is 10" in problem(digits, 422, "bad_parameter")["detail"]
    for ask in ({"params": {"format": "vtt"}}, {"headers": {"Accept": "text/vtt"}}):
        many = client.post("/predict/batch", files={"files": clip}, **ask)
        detail = problem(many, 422, "bad_parameter")["detail"]
        assert "format is vtt, which holds one recording" in detail
    audio = client.post("/predict?format=csv", files={"file": b"no audio"})
    problem(audio, 415, "not_audio")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    missing = client.post("/predict?format=parquet", files=file)
    assert "needs pyarrow" in problem(missing, 501, "extra_missing")["detail"]


@pytest.mark.parametrize("digits", [None, 1, 3, 9])
def test_scores_have_so_many_digits_and_sum_to_one(
    client: TestClient, call: bytes, digits: int | None
) -> None:
    query = {"channels": "split"} | ({} if digits is None else {"digits": digits})
    answer = json.loads(
        client.post("/predict", params=query, files={"file": call}).content, parse_float=Decimal
    )
    for part in (answer, *answer["per_channel"], *answer["segments"]):
        assert sum(part["scores"].values()) == 1
        assert all(-one.as_tuple().exponent <= (digits or 4) for one in part["scores"].values())
        assert part["confidence"] in part["scores"].values()
    assert -answer["out_of_domain"].as_tuple().exponent <= (digits or 4)


def test_zero_digits_are_all(client: TestClient, clip: bytes) -> None:
    exact = client.post("/predict?digits=0", files={"file": clip}).json()
    rounded = client.post("/predict", files={"file": clip}).json()
    assert exact["scores"] != rounded["scores"]
    for label in LABELS:
        assert abs(exact["scores"][label] - rounded["scores"][label]) < 1e-4


def test_each_segment_is_listed_once(client: TestClient, call: bytes) -> None:
    answer = client.post("/predict?channels=split", files={"file": call}).json()
    assert {one["channel"] for one in answer["segments"]} == {0, 1}
    places = [(one["channel"], one["start_s"], one["end_s"]) for one in answer["segments"]]
    assert len(set(places)) == len(places)
    for one in answer["per_channel"]:
        assert not {"segments", "timeline"} & set(one)
