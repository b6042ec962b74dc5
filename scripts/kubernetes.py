"""Writes what the Prometheus operator and Grafana's sidecar take, from what Compose uses."""

import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "deploy/kubernetes/components/monitoring"
ALERTS = ROOT / "docker/prometheus/alerts.yml"
DASHBOARD = ROOT / "docker/grafana/dashboards/nnpm.json"


def documents() -> dict[str, str]:
    """The files of the component that are made: text by name."""
    rules = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "nnpm"},
        "spec": yaml.safe_load(ALERTS.read_text("utf-8")),
    }
    dashboard = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "nnpm-dashboard", "labels": {"grafana_dashboard": "1"}},
    }
    made = "# Made by `make kubernetes` from {}.\n"
    text = "".join(f"    {line}\n" for line in DASHBOARD.read_text("utf-8").splitlines())
    return {
        "rules.yaml": made.format(ALERTS.relative_to(ROOT))
        + yaml.safe_dump(rules, sort_keys=False, width=110),
        "dashboard.yaml": made.format(DASHBOARD.relative_to(ROOT))
        + yaml.safe_dump(dashboard, sort_keys=False)
        + f"data:\n  nnpm.json: |\n{text}",
    }


def main() -> int:
    """Write the files."""
    for name, text in documents().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
