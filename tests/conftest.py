import os
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session", autouse=True)
def _called_testserver() -> Iterator[None]:
    """Services of the tests know the name under which a TestClient calls them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NNPM_ALLOWED_HOSTS", "testserver")
        yield


@pytest.fixture(scope="session")
def corpora() -> Path:
    """The folder of real corpora; a test that asks for it is skipped where there is none."""
    folder = os.environ.get("NNPM_TEST_DATA")
    if not folder:
        pytest.skip("NNPM_TEST_DATA does not name the folder of test corpora")
    return Path(folder)
