"""Fail if this environment has torch: the service's tests would prove nothing here."""

import importlib.util
import sys

if importlib.util.find_spec("torch") is not None:
    sys.exit("torch is installed here; remove the environment and run make again")
