"""The fixtures of the service's tests: an app on tiny bundles."""

from tests.service.conftest import *  # noqa: F403
from tests.service.conftest import _no_settings_from_outside, _two_versions  # noqa: F401
