"""The examples of the OpenAPI document: what a service answers, written down.

``make examples CLIP=clip.wav`` starts a service on a copy of ``models/``, asks it for one of
everything, and writes service/api/templates/examples.json. The name of the clip is not in it.
"""

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from fastapi.testclient import TestClient

from nnpm.service.api.app import create_app
from nnpm.service.api.openapi import EXAMPLES
from nnpm.service.settings import Settings

ROOT = Path(__file__).parents[1]
REQUEST_ID = "0b7e4c9c-6f0a-4a52-9f1e-7d8f2f0a3c11"
OPERATIONS = (
    *("predict", "predict_batch", "adapt", "list_jobs", "list_folders", "show_job", "cancel_job"),
    *("list_models", "show_model", "show_version", "promote", "make_ticket", "live", "ready"),
    *("home", "server_metadata", "server_live", "server_ready", "model_ready", "model_metadata"),
)


def answers(client: TestClient, clip: bytes, suffix: str, folder: Path) -> dict[str, Any]:
    """Ask for one of everything.

    Args:
        client: of a service that may read the folder.
        clip: a recording.
        suffix: of its format.
        folder: of recordings to adapt to.

    Returns:
        Status and body by operation.
    """
    found: dict[str, Any] = {}

    def ask(operation: str, method: str, path: str, **how: Any) -> Any:
        answer = client.request(method, path, headers={"X-Request-ID": REQUEST_ID}, **how)
        assert answer.is_success, answer.text
        found[operation] = {"status": answer.status_code, "body": answer.json()}
        return answer.json()

    name = f"clip{suffix}"
    client.post("/predict", files={"file": (name, clip)})  # the first starts the decoder
    ask("predict", "POST", "/predict", files={"file": (name, clip)})
    two = [("files", (name, clip)), ("files", ("notes.txt", b"no audio"))]
    ask("predict_batch", "POST", "/predict/batch", files=two)
    models = ask("list_models", "GET", "/models")["models"]
    version = next(one for one in models if one["name"] == "default")["versions"][-1]
    ask("show_model", "GET", "/models/default")
    ask("show_version", "GET", f"/models/default/{version}")
    ask("promote", "POST", "/models/default/promote", json={"version": version, "language": "und"})
    ask("list_folders", "GET", "/adapt/folders")
    job = ask("adapt", "POST", "/adapt", json={"folder": str(folder), "language": "ur"})
    ask("cancel_job", "DELETE", f"/adapt/{job['id']}")
    ask("show_job", "GET", f"/adapt/{job['id']}")
    ask("list_jobs", "GET", "/adapt")
    ask("make_ticket", "POST", "/tickets", json={"scope": "stream"})
    ask("live", "GET", "/health/live")
    ask("ready", "GET", "/health/ready")
    ask("home", "GET", "/")
    ask("server_metadata", "GET", "/v2")
    ask("server_live", "GET", "/v2/health/live")
    ask("server_ready", "GET", "/v2/health/ready")
    ask("model_ready", "GET", "/v2/models/default/ready")
    ask("model_metadata", "GET", "/v2/models/default")
    return found


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clip", type=Path, required=True, help="a recording")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        (top / "recordings/urdu").mkdir(parents=True)
        shutil.copytree(ROOT / "models", top / "models")
        settings = Settings(
            models=top / "models",
            adapt_roots=(top / "recordings",),
            adapt_workers=0,
            allowed_hosts=("testserver",),
        )
        with TestClient(create_app(settings)) as client:
            while client.get("/health/ready").status_code != 200:
                time.sleep(0.1)
            clip = args.clip.read_bytes()
            found = answers(client, clip, args.clip.suffix, top / "recordings/urdu")
        text = json.dumps(found, indent=1, ensure_ascii=False)
        for path in {str(top.resolve()), str(top)}:
            text = text.replace(path, "/srv")
    EXAMPLES.write_text(f"{text}\n", "utf-8")


if __name__ == "__main__":
    main()
