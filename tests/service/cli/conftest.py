from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.servers import Server, serving

IMPATIENT = "from nnpm.service.cli import serve; serve.SHUTDOWN_S = 1"


@pytest.fixture
def server(models: Path, tmp_path: Path) -> Iterator[Server]:
    """Less patient at its end."""
    with serving(models, tmp_path, IMPATIENT) as server:
        yield server
