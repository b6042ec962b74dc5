"""deploy/kubernetes: valid by the schemas of Kubernetes, and restricted."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from nnpm.service.settings import Settings

ROOT = Path(__file__).parents[2] / "deploy/kubernetes"
FILES = sorted(path for path in ROOT.rglob("*.yaml") if path.name != "kustomization.yaml")
BUILDS = ("base", "overlays/public")
NEWEST = kubernetes_validate.latest_version()


def documents(text: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(text))


def built(name: str) -> list[dict[str, Any]]:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("no kubectl, which has kustomize")
    command = [kubectl, "kustomize", str(ROOT / name)]
    return documents(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


BASE = [
    found
    for path in FILES
    if path.is_relative_to(ROOT / "base")
    for found in documents(path.read_text())
]
DEPLOYMENTS = {d["metadata"]["name"]: d for d in BASE if d["kind"] == "Deployment"}
PODS = {name: deployment["spec"]["template"] for name, deployment in DEPLOYMENTS.items()}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_file_is_valid_by_the_schemas(path: Path) -> None:
    for document in documents(path.read_text()):
        kubernetes_validate.validate(document, NEWEST, strict=True)


@pytest.mark.parametrize("name", BUILDS)
def test_every_file_is_listed(name: str) -> None:
    folder = ROOT / name
    listed = yaml.safe_load((folder / "kustomization.yaml").read_text())
    named = {*listed["resources"], *(patch["path"] for patch in listed.get("patches", []))}
    there = {path.name for path in folder.glob("*.yaml")} - {"kustomization.yaml"}
    assert {entry for entry in named if not entry.startswith("..")} == there


@pytest.mark.parametrize("name", BUILDS)
def test_what_kustomize_builds_is_valid(name: str) -> None:
    found = built(name)
    for document in found:
        kubernetes_validate.validate(document, NEWEST, strict=True)
    kinds = {document["kind"] for document in found}
    assert kinds >= {
        "Deployment", "Service", "HorizontalPodAutoscaler", "PersistentVolumeClaim",
        "NetworkPolicy", "PodDisruptionBudget",
    }  # fmt: skip


def test_the_overlay_wants_keys() -> None:
    (settings,) = [d for d in built("overlays/public") if d["kind"] == "ConfigMap"]
    assert settings["data"]["NNPM_INSECURE"] == "0"
    assert settings["data"]["NNPM_API_KEYS_FILE"].startswith("/run/secrets/")


def test_the_names_of_the_service_are_its_own() -> None:
    (settings,) = [d for d in BASE if d["kind"] == "ConfigMap"]
    (service,) = [d for d in BASE if d["kind"] == "Service"]
    folder = ROOT / "overlays/public"
    space = yaml.safe_load((folder / "kustomization.yaml").read_text())["namespace"]
    name = service["metadata"]["name"]
    wanted = [name, f"{name}.{space}", f"{name}.{space}.svc", f"{name}.{space}.svc.cluster.local"]
    assert settings["data"]["NNPM_ALLOWED_HOSTS"].split(",") == wanted
    public = yaml.safe_load((folder / "settings.yaml").read_text())["data"]["NNPM_ALLOWED_HOSTS"]
    ingress = yaml.safe_load((folder / "ingress.yaml").read_text())
    hosts = [rule["host"] for rule in ingress["spec"]["rules"]]
    assert public.split(",") == [*hosts, *wanted]


@pytest.mark.parametrize("name", PODS)
def test_the_pods_pass_the_restricted_standard(name: str) -> None:
    pod = PODS[name]["spec"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    (container,) = pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["resources"].keys() == {"requests", "limits"}
    assert container["livenessProbe"]
    assert container["startupProbe"]
    # NNPM_PORT=tcp://… otherwise, which is no port
    assert pod["enableServiceLinks"] is False


def test_service_and_worker_are_the_same_user_on_the_same_volumes() -> None:
    service, worker = (PODS[f"nnpm-{name}"]["spec"] for name in ("service", "worker"))
    assert service["securityContext"] == worker["securityContext"]
    assert service["volumes"] == worker["volumes"]
    user = service["securityContext"]["runAsUser"]
    dockerfile = (ROOT.parents[1] / "docker/service.Dockerfile").read_text()
    assert f"USER {user}:" in dockerfile


@pytest.mark.parametrize("name", PODS)
def test_what_is_set_are_settings(name: str) -> None:
    (container,) = PODS[name]["spec"]["containers"]
    (settings,) = [d for d in BASE if d["kind"] == "ConfigMap"]
    given = {entry["name"] for entry in container["env"]} | settings["data"].keys()
    assert given <= {f"NNPM_{field.upper()}" for field in Settings.model_fields}


def test_egress_lets_out_what_a_setting_needs() -> None:
    (policy,) = [d for d in BASE if d["metadata"]["name"] == "nnpm-all"]
    out = {
        (one["protocol"], one["port"]) for rule in policy["spec"]["egress"] for one in rule["ports"]
    }
    names, database, store = {("UDP", 53), ("TCP", 53)}, {("TCP", 5432)}, {("TCP", 443)}
    assert out == names | database | store | {("TCP", 4317), ("TCP", 4318)}  # and OTLP


def test_every_selector_finds_its_pods() -> None:
    def finds(selector: dict[str, str], template: dict[str, Any]) -> bool:
        return selector.items() <= template["metadata"]["labels"].items()

    for document in BASE:
        spec = document.get("spec", {})
        for selector in (spec.get("selector"), spec.get("podSelector")):
            if selector:
                labels = selector.get("matchLabels", selector)
                assert any(finds(labels, pod) for pod in PODS.values()), document["metadata"]
    targets = [d["spec"]["scaleTargetRef"]["name"] for d in BASE if "Autoscaler" in d["kind"]]
    assert set(targets) <= DEPLOYMENTS.keys()
    # who is scaled by another says no number itself: each apply would set it back
    assert all("replicas" not in DEPLOYMENTS[target]["spec"] for target in targets)
