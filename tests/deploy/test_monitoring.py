"""Dashboard and alerts: valid by Prometheus' own tools, and about metrics that there are."""

import re
import shutil
import subprocess
import time
from collections.abc import Callable

import pytest
import yaml
from fastapi.testclient import TestClient

from tests.support.prometheus import ALERTS, DASHBOARD, PROMETHEUS, ROOT, charts, questions


def test_every_metric_that_is_asked_for_exists(
    serve: Callable[..., TestClient], clip: bytes
) -> None:
    client = serve(shadow_share=1)
    client.post("/models/default/shadow", json={"version": "1", "language": "und"})
    client.post("/predict", content=clip, headers={"Content-Type": "audio/wav"})
    client.post("/predict", content=b"x", headers={"Content-Type": "audio/wav"})
    client.post("/predict", content=b"x", headers={"Content-Type": "text/plain"})
    while not client.get("/models/default").json()["figures"][1:]:  # of the shadow
        time.sleep(0.01)
    there = set(re.findall(r"^((?:nnpm|process)_\w+)", client.get("/metrics").text, re.MULTILINE))
    asked = set(re.findall(r"\b((?:nnpm|process)_\w+)", " ".join(questions())))
    # No recording abstained and no job has ended: these appear with the first of them.
    there |= {"nnpm_abstentions_total", "nnpm_job_seconds_sum", "nnpm_job_seconds_count"}
    assert asked - there == set()


@pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool (Debian: prometheus)")
@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "config", "--syntax-only", "prometheus.yml"),
        ("check", "config", "--syntax-only", "prometheus-keys.yml"),
        ("check", "rules", "alerts.yml"),
        ("test", "rules", "alerts_test.yml"),
    ],
    ids=" ".join,
)
def test_promtool_agrees(arguments: tuple[str, ...]) -> None:
    done = subprocess.run(
        ["promtool", *arguments], cwd=PROMETHEUS, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_seen_to_fire() -> None:
    text = (PROMETHEUS / "alerts_test.yml").read_text()
    assert [rule["alert"] for rule in ALERTS if f'"{rule["alert"]}"' not in text] == []


def test_the_two_configurations_differ_in_the_key_alone() -> None:
    plain, keyed = (
        yaml.safe_load((PROMETHEUS / name).read_text())
        for name in ("prometheus.yml", "prometheus-keys.yml")
    )
    key = keyed["scrape_configs"][0].pop("authorization")
    assert key == {"credentials_file": "/run/secrets/metrics_key"}
    assert plain == keyed


def test_the_panels_are_whole() -> None:
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    source = yaml.safe_load(
        (ROOT / "docker/grafana/provisioning/datasources/prometheus.yml").read_text()
    )["datasources"][0]
    for panel in charts():
        assert panel["datasource"] == {"type": source["type"], "uid": source["uid"]}
        assert panel["title"]
        assert all(target["expr"].strip() for target in panel["targets"])
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])


def test_no_panel_lies_on_another() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert at["x"] + at["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells


@pytest.mark.parametrize("about", ["Emotions", "Real-time", "Latency", "Abstentions", "Drift",
                                   "Jobs", "Shadow"])  # fmt: skip
def test_the_dashboard_shows(about: str) -> None:
    assert any(about in panel["title"] for panel in charts())
