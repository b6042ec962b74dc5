"""deploy/kubernetes: valid by the schemas of Kubernetes, and restricted."""

import json
import shutil
import sqlite3
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from nnpm.service.jobs.job import RUNNING, State
from nnpm.service.jobs.store import JobStore
from nnpm.service.settings import Settings
from scripts.kubernetes import FOLDER as MONITORING
from scripts.kubernetes import documents as made_documents
from tests.support.jobs import job

ROOT = Path(__file__).parents[2] / "deploy/kubernetes"
FILES = sorted(path for path in ROOT.rglob("*.yaml") if path.name != "kustomization.yaml")
BUILDS = ("base", "overlays/public", "overlays/predict")
PATCHES = [ROOT / "overlays/predict/service.yaml"]  # a part of a document; all is built below
COMPONENTS = ("monitoring", "keda", "kserve")
CUSTOM = json.loads((Path(__file__).parent / "data/custom.json").read_text())
NEWEST = kubernetes_validate.latest_version()


def documents(text: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(text))


def validate(document: dict[str, Any]) -> None:
    """Check a document by the schemas of Kubernetes, or by ours of custom resources."""
    if document["kind"] not in CUSTOM:
        kubernetes_validate.validate(document, NEWEST, strict=True)
        return
    assert document.keys() == {"apiVersion", "kind", "metadata", "spec"}
    own = CUSTOM[document["kind"]]
    assert own["source"]
    assert own["version"].endswith(f", {document['apiVersion']}")
    schema = own["schema"] | {"$defs": CUSTOM["$defs"]}
    jsonschema.validate(document, schema)
    if "containers" in document["spec"]:
        spec = {"containers": document["spec"]["containers"]}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": spec}
        kubernetes_validate.validate(pod, NEWEST, strict=True)


def built(name: str, root: Path = ROOT) -> list[dict[str, Any]]:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("no kubectl, which has kustomize")
    command = [kubectl, "kustomize", str(root / name)]
    return documents(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


BASE = [
    found
    for path in FILES
    if path.is_relative_to(ROOT / "base")
    for found in documents(path.read_text())
]
DEPLOYMENTS = {d["metadata"]["name"]: d for d in BASE if d["kind"] == "Deployment"}
PODS = {name: deployment["spec"]["template"] for name, deployment in DEPLOYMENTS.items()}


@pytest.mark.parametrize(
    "path", sorted({*FILES} - {*PATCHES}), ids=lambda path: path.relative_to(ROOT).as_posix()
)
def test_every_file_is_valid_by_the_schemas(path: Path) -> None:
    for document in documents(path.read_text()):
        validate(document)


@pytest.mark.parametrize("name", [*BUILDS, *(f"components/{name}" for name in COMPONENTS)])
def test_every_file_is_listed(name: str) -> None:
    folder = ROOT / name
    listed = yaml.safe_load((folder / "kustomization.yaml").read_text())
    patches = (patch.get("path") for patch in listed.get("patches", []))
    named = {*listed["resources"], *filter(None, patches)}
    there = {path.name for path in folder.glob("*.yaml")} - {"kustomization.yaml"}
    assert {entry for entry in named if not entry.startswith("..")} == there


@pytest.mark.parametrize("name", BUILDS)
def test_what_kustomize_builds_is_valid(name: str) -> None:
    found = built(name)
    for document in found:
        validate(document)
    kinds = {document["kind"] for document in found}
    assert kinds >= {
        "Deployment", "Service", "HorizontalPodAutoscaler", "NetworkPolicy", "PodDisruptionBudget"
    }  # fmt: skip
    assert ("PersistentVolumeClaim" in kinds) == (name != "overlays/predict")


def test_the_predicting_profile_needs_nothing_else() -> None:
    found = built("overlays/predict")
    (deployment,) = [d for d in found if d["kind"] == "Deployment"]
    volumes = {v["name"]: v for v in deployment["spec"]["template"]["spec"]["volumes"]}
    assert all("emptyDir" in volumes[name] for name in ("models", "jobs", "tmp"))
    assert volumes["secrets"]["secret"]["optional"]
    (settings,) = [d["data"] for d in found if d["kind"] == "ConfigMap"]
    assert settings["NNPM_ADAPT"] == "0"
    assert settings["NNPM_DATABASE_URL"].startswith("sqlite:////data/jobs/")
    assert {name.removeprefix("NNPM_").lower() for name in settings} <= Settings.model_fields.keys()
    ports = [port["port"] for d in found if d["metadata"]["name"] == "nnpm-all"
             for rule in d["spec"]["egress"] for port in rule["ports"]]  # fmt: skip
    assert 5432 not in ports


@pytest.mark.parametrize("overlay", ["public", "predict"])
def test_components_go_with_the_overlays(overlay: str, tmp_path: Path) -> None:
    shutil.copytree(ROOT, tmp_path / "k")
    names = [name for name in COMPONENTS if (overlay, name) != ("predict", "keda")]
    folder = tmp_path / "k/overlays/all"
    folder.mkdir()
    (folder / "kustomization.yaml").write_text(
        yaml.safe_dump(
            {
                "resources": [f"../{overlay}"],
                "components": [f"../../components/{name}" for name in names],
                "images": [{"name": "nnpm-service", "newName": "registry/x", "newTag": "1"}],
            }
        )
    )
    found = built("overlays/all", tmp_path / "k")
    for document in found:
        validate(document)
    kinds = {document["kind"] for document in found}
    assert kinds >= {"ServiceMonitor", "PrometheusRule", "ServingRuntime"}
    deployments = {d["metadata"]["name"]: d for d in found if d["kind"] == "Deployment"}
    for scaled in [d for d in found if d["kind"] == "ScaledObject"]:
        assert "replicas" not in deployments[scaled["spec"]["scaleTargetRef"]["name"]]["spec"]
    (runtime,) = [d for d in found if d["kind"] == "ServingRuntime"]
    assert runtime["spec"]["containers"][0]["image"] == "registry/x:1"


def test_monitoring_is_what_compose_has() -> None:
    for name, text in made_documents().items():
        assert (MONITORING / name).read_text() == text, "run `make kubernetes`"


def test_keda_counts_the_jobs_that_want_a_worker(tmp_path: Path) -> None:
    (scaled,) = [
        d for d in documents((ROOT / "components/keda/scaling.yaml").read_text())
        if d["kind"] == "ScaledObject"
    ]  # fmt: skip
    query = scaled["spec"]["triggers"][0]["metadata"]["query"]
    assert all(f"'{state}'" in query for state in {State.QUEUED, *RUNNING})
    store = JobStore(f"sqlite:///{tmp_path / 'jobs.db'}")
    for state in State:
        store.create(job(state=state))
    store.close()
    with sqlite3.connect(tmp_path / "jobs.db") as connection:
        (count,) = connection.execute(query).fetchone()
    assert count == 1 + len(RUNNING)


def test_the_runtime_of_kserve_sets_what_there_is() -> None:
    (runtime,) = documents((ROOT / "components/kserve/runtime.yaml").read_text())
    given = {entry["name"] for entry in runtime["spec"]["containers"][0]["env"]}
    assert given <= {f"NNPM_{field.upper()}" for field in Settings.model_fields}


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
