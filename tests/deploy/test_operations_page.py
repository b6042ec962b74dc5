"""The pages in docs/operate/ name what exists: alerts, variables, limits of proxies."""

import re
from pathlib import Path

import yaml

from nnpm.service.settings import Settings

ROOT = Path(__file__).parents[2]
PAGES = "\n".join(page.read_text("utf-8") for page in sorted((ROOT / "docs/operate").glob("*.md")))


def test_every_alert_has_its_line() -> None:
    alerts = yaml.safe_load((ROOT / "docker/prometheus/alerts.yml").read_text())
    names = [rule["alert"] for rule in alerts["groups"][0]["rules"]]
    assert re.findall(r"^\| `(Nnpm\w+)` \|.*\|.*\|$", PAGES, re.MULTILINE) == names


def test_the_variables_that_are_named_exist() -> None:
    known = {f"NNPM_{name.upper()}" for name in Settings.model_fields}
    known |= set(re.findall(r"^#?([A-Z_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
    named = re.findall(r"`((?:NNPM|COMPOSE|SERVICE|WORKER|TMP|TORCH|TRAIN)_[A-Z_]+)", PAGES)
    assert set(named) - known == set()


def test_the_proxies_let_pass_what_the_service_takes() -> None:
    mebibytes = Settings.model_fields["max_upload_bytes"].default // 1024**2
    assert f"max_size {mebibytes}MB" in PAGES
    assert f"client_max_body_size {mebibytes}m;" in PAGES
    ingress = (ROOT / "deploy/kubernetes/overlays/public/ingress.yaml").read_text()
    assert f"proxy-body-size: {mebibytes}m\n" in ingress
