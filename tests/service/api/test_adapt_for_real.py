"""POST /adapt without stand-ins: a child process adapts a small base, and the version answers."""

import io
import zipfile
from collections.abc import Callable

import pytest
from fastapi.testclient import TestClient

from tests.support.adaptation import ended
from tests.support.sounds import encode, speechlike

pytest.importorskip("autograd")


@pytest.mark.smoke
def test_the_plain_install_adapts(serve: Callable[..., TestClient]) -> None:
    client = serve()
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for number in range(20):
            archive.writestr(f"{number}.wav", encode(speechlike(0.6, seed=number)))
    files = {
        "archive": ("x.zip", data.getvalue()),
        "labels": ("l.csv", "path,emotion\n0.wav,sad\n1.wav,angry\n"),
    }
    fields = {"language": "ur", "force": "true", "emotions": ["angry", "sad", "happy"]}
    done = ended(client, client.post("/adapt", files=files, data=fields).json(), seconds=240)
    assert (done["state"], done["error"]) == ("succeeded", None)
    assert done["clips"]["accepted"] == 20
    assert 0 <= done["answered_share"]["before"] <= done["answered_share"]["after"] <= 1
    detail = client.get(f"/models/default/{done['version']}").json()
    assert detail["card"]["emotions"] == ["angry", "sad", "happy"]
    page = client.get(f"/adapt/{done['id']}/report")
    assert page.status_code == 200
    assert "Before and after" in page.text
