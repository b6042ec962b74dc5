"""For tests of /adapt: a stand-in for the child process, archives, and waiting for a job."""

import io
import time
import zipfile
from pathlib import Path
from typing import Any

from fastapi.testclient import TestClient

from tests.support.sounds import encode, speechlike

ENDED = {"succeeded", "failed", "cancelled", "rejected", "interrupted"}

# Behaves like training/adaptation/job.py as seen from outside; waits while the file "hold" exists.
CHILD = """
import json, pathlib, shutil, sys, time
folder = pathlib.Path(sys.argv[1])
asked = json.loads((folder / "request.json").read_text())
names = sorted(p.name for p in pathlib.Path(asked["target"]).rglob("*") if p.is_file())
while (folder.parent.parent / "hold").exists():
    time.sleep(0.01)
verdict = "reject" if asked["method"] == "dann" else "improved"
out = None
if verdict != "reject" or asked["force"]:
    out = asked["out"]
    shutil.copytree(asked["bundle"], out)
report = {"method": asked["method"], "full": False, "seed": asked["seed"],
          "language": asked["language"], "base": {"version": "2", "digest": "0" * 64},
          "clips": {"accepted": len(names), "skipped": {"no_speech": 1},
                    "examples": {"no_speech": ["<b>.wav"]}},
          "windows": len(names), "verdict": verdict, "reasons": ["It does <better>."],
          "estimated_accuracy": {"value": 0.6, "error": 0.1}, "evidence": {"a_figure": 0.5},
          "answered_share": {"before": 0.9, "after": 0.8},
          "confidence": {"before": 0.7, "after": 0.65}, "labels": 0, "default_emotions": [],
          "emotions": {"before": {"angry": 0.75, "sad": 0.25}, "after": {"sad": 1.0}},
          "changed": 9, "changed_clips": [
              {"path": path, "before": "angry", "after": "sad", "confidence": 0.91}
              for path in ("<i>.wav", *names)],
          "seconds": {"listen": 1.0}, "bundle": out, "names": names,
          "asked": {key: asked[key] for key in ("emotions", "channels")}}
if asked["labels"]:
    report["asked"]["labels"] = pathlib.Path(asked["labels"]).read_text().split()
(folder / "report.json.tmp").write_text(json.dumps(report))
(folder / "report.json.tmp").rename(folder / "report.json")
"""


def ended(client: TestClient, job: dict[str, Any], seconds: float = 60) -> dict[str, Any]:
    deadline = time.monotonic() + seconds
    while job["state"] not in ENDED:
        assert time.monotonic() < deadline, job
        time.sleep(0.02)
        job = client.get(f"/adapt/{job['id']}").json()
    return job


def kept(tmp_path: Path) -> list[str]:
    jobs = tmp_path / "jobs"
    return sorted(path.name for path in jobs.iterdir()) if jobs.exists() else []


def zipped(*names: str) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name in names:
            archive.writestr(name, encode(speechlike()))
    return data.getvalue()
