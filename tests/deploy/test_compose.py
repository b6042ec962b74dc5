"""docker-compose.yml: valid by Compose's own schema, closed by default, and fully described."""

import json
import re
import stat
import subprocess
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from nnpm.service.settings import Settings

ROOT = Path(__file__).parents[2]
FILES = ("docker-compose.yml", "docker/compose.public.yml")
VARIABLE = re.compile(r"\$\{(\w+)(?::?([-?])([^}]*))?\}")


class _Loader(yaml.SafeLoader):
    """Knows Compose's !override, which replaces instead of merging."""


_Loader.add_constructor(
    "!override",
    lambda loader, node: (
        loader.construct_sequence(node)
        if isinstance(node, yaml.SequenceNode)
        else loader.construct_mapping(node)
    ),
)


def load(name: str) -> dict[str, Any]:
    """As Compose reads it when no variable is set."""
    text = VARIABLE.sub(lambda m: m[3] or "" if m[2] == "-" else "x", (ROOT / name).read_text())
    return yaml.load(text, _Loader)


COMPOSE = load(FILES[0])
OURS = ("service", "worker", "single")


@pytest.mark.parametrize("name", FILES)
def test_it_is_valid_by_the_schema_of_compose(name: str) -> None:
    vendored = files("check_jsonschema") / "builtin_schemas/vendor/compose-spec.json"
    schema = json.loads(vendored.read_text())
    jsonschema.Draft7Validator(schema).validate(load(name))


def test_every_port_is_published_on_this_machine_only() -> None:
    ports = [port for part in COMPOSE["services"].values() for port in part.get("ports", [])]
    assert len(ports) == 4
    assert [port for port in ports if not port.startswith("127.0.0.1:")] == []


def test_what_is_published_wider_wants_a_key() -> None:
    parts = load(FILES[1])["services"]
    public, keys = parts["service"], parts["keys"]
    assert public["ports"] == ["0.0.0.0:8000:8000"]
    assert public["environment"]["NNPM_INSECURE"] == "0"
    file = public["environment"]["NNPM_API_KEYS_FILE"]
    assert keys["environment"] == {"NNPM_API_KEYS_FILE": file}
    # the folder is mounted: of a file alone, its replacement would not be seen
    folder = str(Path(file).parent)
    assert public["volumes"] == [f"keys:{folder}:ro"]
    assert keys["volumes"] == [f"keys:{folder}"]
    for name in ("service", "worker"):
        dockerfile = (ROOT / f"docker/{name}.Dockerfile").read_text()
        assert f"install -d -o nnpm -g nnpm -m 700 {folder} " in dockerfile
    assert keys["network_mode"] == "none"


def test_what_calls_the_service_by_name_may() -> None:
    """Prometheus does; the health check and people use addresses, or localhost."""
    prometheus = yaml.safe_load((ROOT / "docker/prometheus/prometheus.yml").read_text())
    (target,) = prometheus["scrape_configs"][0]["static_configs"][0]["targets"]
    name = target.partition(":")[0]
    given = COMPOSE["services"]["service"]["environment"]["NNPM_ALLOWED_HOSTS"]
    assert name in Settings(allowed_hosts=given).names
    public = load(FILES[1])["services"]["service"]["environment"]["NNPM_ALLOWED_HOSTS"]
    assert name in public.split(",")


@pytest.mark.parametrize("name", OURS)
def test_our_containers_may_do_little(name: str) -> None:
    part = COMPOSE["services"][name]
    assert part["read_only"]
    assert part["init"]
    assert part["cap_drop"] == ["ALL"]
    assert part["security_opt"] == ["no-new-privileges:true"]
    assert part["deploy"]["resources"]["limits"].keys() == {"cpus", "memory"}


@pytest.mark.parametrize("name", COMPOSE["services"])
def test_every_container_says_how_it_is(name: str) -> None:
    assert "healthcheck" in COMPOSE["services"][name]


def test_service_and_worker_share_jobs_and_registry() -> None:
    parts = [COMPOSE["services"][name] for name in OURS]
    assert all(part["volumes"] == ["models:/data/models", "jobs:/data/jobs"] for part in parts)
    assert COMPOSE["services"]["service"]["environment"]["NNPM_ADAPT_WORKERS"] == "0"


def test_the_worker_stands_back_behind_the_service() -> None:
    parts = COMPOSE["services"]
    assert "cpu_shares" not in parts["service"]  # 1024
    assert int(parts["worker"]["cpu_shares"]) < 1024 / 4


def test_the_default_needs_no_profile_and_the_rest_has_one() -> None:
    plain = {name for name, part in COMPOSE["services"].items() if "profiles" not in part}
    assert plain == {"service", "worker", "database"}


@pytest.mark.parametrize("name", [*OURS, "train"])
def test_what_is_set_are_settings(name: str) -> None:
    given = {key for key in COMPOSE["services"][name]["environment"] if key.startswith("NNPM_")}
    assert given <= {f"NNPM_{field.upper()}" for field in Settings.model_fields}


def test_every_variable_is_described_and_every_description_is_of_one() -> None:
    text = "".join((ROOT / name).read_text() for name in FILES)
    used = {found[0] for found in VARIABLE.findall(text)} | {"COMPOSE_PROFILES"}
    lines = (ROOT / ".env.example").read_text().splitlines()
    described = [m[1] for line in lines if (m := re.match(r"#?([A-Z_]+)=", line))]
    assert sorted(described) == sorted(used)


def test_the_described_defaults_are_the_real_ones() -> None:
    text = "".join((ROOT / name).read_text() for name in FILES)
    real = {name: default for name, kind, default in VARIABLE.findall(text) if kind == "-"}
    for name, default in re.findall(
        r"^#([A-Z_]+)=(.*)$", (ROOT / ".env.example").read_text(), re.MULTILINE
    ):
        assert real.get(name, default) == default, name


def test_the_secrets_are_made_once_and_for_their_readers(tmp_path: Path) -> None:
    (tmp_path / "docker").mkdir()
    script = (ROOT / "docker/secrets.sh").read_bytes()
    (tmp_path / "docker/secrets.sh").write_bytes(script)
    (tmp_path / ".env.example").write_bytes((ROOT / ".env.example").read_bytes())
    made = []
    for _ in range(2):
        subprocess.run(["sh", "docker/secrets.sh"], cwd=tmp_path, check=True, capture_output=True)
        folder = tmp_path / "docker/secrets"
        made.append({path.name: path.read_text() for path in folder.iterdir()})
    assert made[0] == made[1]
    assert made[0].keys() == COMPOSE["secrets"].keys()
    assert made[0]["postgres_password"] in made[0]["nnpm_database_url"]
    assert len(set(made[0].values())) == 3
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o444}
    assert (tmp_path / ".env").exists()


def test_secrets_are_neither_committed_nor_sent_to_a_build() -> None:
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert {"/.env", "/docker/secrets/"} <= set(ignored)
    assert (ROOT / ".dockerignore").read_text().splitlines()[1] == "*"
