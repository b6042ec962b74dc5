import os
from pathlib import Path

import pytest

from nnpm.service.environment import warn_of_unknown
from nnpm.service.settings import Settings, SettingsError, load
from nnpm.service.system import available_cores

pytestmark = pytest.mark.smoke


def test_every_setting_is_documented() -> None:
    for name, field in Settings.model_fields.items():
        assert field.description, name


def test_defaults_are_those_of_the_contract() -> None:
    settings = load()
    assert (settings.host, settings.port) == ("127.0.0.1", 8000)
    assert settings.models == Path("models")
    assert settings.max_upload_bytes == 512 * 1024**2
    assert settings.max_duration_s == 7200
    assert settings.max_channels == 8
    assert settings.workers == available_cores()
    assert settings.queue_limit == 128


def test_the_environment_sets_and_arguments_win(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NNPM_PORT", "9000")
    monkeypatch.setenv("NNPM_WORKERS", "3")
    assert load(port=None).port == 9000
    assert load(port="9001").port == 9001
    assert load().workers == 3


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("NNPM_PORT", "70000"),
        ("NNPM_PORT", "http"),
        ("NNPM_WORKERS", "0"),
        ("NNPM_MAX_UPLOAD_BYTES", "-1"),
        ("NNPM_QUEUE_LIMIT", "many"),
        ("NNPM_INSECURE", "perhaps"),
    ],
)
def test_a_bad_setting_is_one_line(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        load()
    assert str(caught.value).startswith(name)
    assert value in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"), [("NNPM_WORKERS", "x"), ("NNPM_LOG_LEVEL", "loud"), ("NNPM_PORT", "-1")]
)
def test_a_bad_setting_accuses_itself_alone(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        load()
    assert str(caught.value).count("NNPM_") == 1


@pytest.mark.parametrize("name", ["NNPM_HOST", "NNPM_MODELS", "NNPM_DATABASE_URL"])
def test_a_setting_is_text(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, os.fsdecode(b"caf\xe9"))
    with pytest.raises(SettingsError, match=rf"{name} is caf\\xe9; it must be text in UTF-8"):
        load()


def test_a_variable_that_is_no_setting_is_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("NNPM_MODLES", "nnpm_port", "NNPM_TEST_DATA", "NNPM_PORT_8000_TCP", "NNPM_X"):
        monkeypatch.setenv(name, "1")
    for name in ("NNPM_SERVICE_HOST", "NNPM_SERVICE_PORT_HTTP", "NNPM_REDIS_SERVICE_HOST"):
        monkeypatch.setenv(name, "1")
    warn_of_unknown()
    assert [record.getMessage() for record in caplog.records] == [
        "NNPM_MODLES is not a setting. Did you mean NNPM_MODELS?", "NNPM_X is not a setting.",
    ]  # fmt: skip


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_this_machine_may_listen(host: str) -> None:
    assert load(host=host).host == host


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "example.org"])
def test_others_may_not_reach_it_unless_said_so(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    with pytest.raises(SettingsError, match="NNPM_INSECURE=1"):
        load(host=host)
    monkeypatch.setenv("NNPM_INSECURE", "1")
    assert load(host=host).host == host


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, None),
        ({"sys/fs/cgroup/cpu.max": "max 100000\n"}, None),
        ({"sys/fs/cgroup/cpu.max": "100000 100000\n"}, 1),
        ({"sys/fs/cgroup/cpu.max": "50000 100000\n"}, 1),
        (
            {
                "proc/self/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/cpu.max": "100000 100000\n",
                "sys/fs/cgroup/a/b/cpu.max": "max 100000\n",
            },
            1,
        ),
        (
            {
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            None,
        ),
        (
            {
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "20000\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            1,
        ),
    ],
)
def test_cores_follow_the_quota(
    tmp_path: Path, files: dict[str, str], expected: int | None
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    unlimited = available_cores(tmp_path / "nothing-here")
    assert available_cores(tmp_path) == (expected or unlimited)


def test_a_secret_is_a_file_and_the_environment_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = "postgresql://nnpm:hidden@db/nnpm"
    (tmp_path / "nnpm_database_url").write_text(url + "\n")
    (tmp_path / "of_another").write_text("not ours")
    monkeypatch.setattr("nnpm.service.settings.SECRETS", tmp_path)
    assert load().database_url == url
    monkeypatch.setenv("NNPM_DATABASE_URL", "sqlite:///here.db")
    assert load().database_url == "sqlite:///here.db"


@pytest.mark.parametrize("path", ["emotion", "//a", "/a b", "/a/../b", "https://a/b", "/a//b"])
def test_a_root_path_is_a_path(path: str) -> None:
    with pytest.raises(SettingsError, match="NNPM_ROOT_PATH is"):
        load(root_path=path)
    assert load(root_path="/voice/emotion/").root_path == "/voice/emotion"
