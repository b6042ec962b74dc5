"""The service needs nothing of training, and all of it can be imported."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.smoke


def test_the_service_runs_without_torch() -> None:
    code = (
        "import sys, nnpm.service.api.app, nnpm.service.cli.predict, nnpm.service.cli.serve;"
        "assert not {'torch', 'nnpm.training', 'onnx'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_module_can_be_imported() -> None:
    """Alembic's own scripts apart, which run inside its environment."""
    code = (
        "import importlib, pkgutil, sys, nnpm.service as package\n"
        "for found in pkgutil.walk_packages(package.__path__, 'nnpm.service.'):\n"
        "    if '.migrations.' not in found.name and not found.name.endswith('__main__'):\n"
        "        importlib.import_module(found.name)\n"
        "assert not {'torch', 'nnpm.training', 'onnx'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
