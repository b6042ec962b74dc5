"""What replicas and fleets refuse before there is a cluster; the rest is in test_ray.py."""

import pytest

from nnpm.service.command import UsageError
from nnpm.service.scale import deployment, fleet
from nnpm.service.settings import Settings, SettingsError


def test_a_replica_that_anybody_reaches_needs_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    assert deployment.replica_settings(3, "127.0.0.1").workers == 3
    assert deployment.replica_settings(3, "127.0.0.1").adapt_workers == 0
    with pytest.raises(SettingsError, match="requests need no key"):
        deployment.replica_settings(1, "0.0.0.0")
    monkeypatch.setenv("NNPM_INSECURE", "1")
    monkeypatch.setenv("NNPM_WORKERS", "2")
    assert deployment.replica_settings(1, "0.0.0.0").workers == 2


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"models": "models"}, "NNPM_JOBS is jobs; workers on other machines need an absolute"),
        ({"models": "/m", "jobs": "/j", "database_url": "sqlite:///x.db"}, "must be a Postgres"),
    ],
)
def test_a_fleet_shares_what_settings_name(given: dict[str, str], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        fleet.require_shared(Settings.model_validate(given))
    fleet.require_shared(Settings.model_validate({"models": "/a/models"}))
