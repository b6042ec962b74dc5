"""The questions that our dashboard and alerts ask Prometheus."""

import json
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "docker/prometheus"
DASHBOARD = json.loads((ROOT / "docker/grafana/dashboards/nnpm.json").read_text())
ALERTS = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"][0]["rules"]


def charts() -> list[dict[str, Any]]:
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def questions() -> list[str]:
    asked = [target["expr"] for panel in charts() for target in panel["targets"]]
    return asked + [rule["expr"] for rule in ALERTS]
