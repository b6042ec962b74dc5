"""Fail if this environment has torch: tests in it would not show that the service needs none."""

import importlib.util
import sys

if importlib.util.find_spec("torch") is not None:
    sys.exit("torch is installed here; remove the environment and run make again")
