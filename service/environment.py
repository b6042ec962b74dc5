"""The variables NNPM_... that are given: which are settings, and what a misspelt one may mean."""

import logging
import os
import re

from dotenv import dotenv_values

from . import settings
from .inference.errors import nearest, printable

log = logging.getLogger("nnpm")


def names_in_file() -> set[str]:
    """List the names NNPM_... that .env sets, settings or not.

    Raises:
        SettingsError: if it cannot be read.
    """
    try:
        found = dotenv_values(settings.ENV_FILE) if settings.ENV_FILE.is_file() else {}
    except (OSError, UnicodeDecodeError) as error:
        raise settings.unreadable(error) from error
    return {name for name, value in found.items() if name.startswith("NNPM_") and value}


_OTHERS = re.compile(
    r"NNPM_(TEST_.*|IMAGE_.*|PUBLISH|TAG"
    # Kubernetes tells each pod of the Services beside it; ours is called nnpm.
    r"|(\w+_)?SERVICE_(HOST|PORT.*)|(\w+_)?PORT_\d+_.*)"
)
"""Variables NNPM_... that are not settings, and mean no setting."""


def unknown_names() -> list[str]:
    """Say of each variable NNPM_... that is not a setting, also of .env, what it may mean."""
    found = []
    for name in sorted({*os.environ, *names_in_file()}):
        known = name.upper()
        if (
            known.startswith("NNPM_")
            and known not in settings.variables()
            and not _OTHERS.fullmatch(known)
        ):
            # The prefix, which all share, would make any two names near.
            fields = [field.upper() for field in settings.Settings.model_fields]
            near = nearest(known.removeprefix("NNPM_"), fields).replace("mean ", "mean NNPM_")
            found.append(f"{printable(name)} is not a setting.{near}")
    return found


def warn_of_unknown() -> None:
    """Log a warning for each variable NNPM_... that is not a setting, also of .env."""
    for sentence in unknown_names():
        log.warning("%s", sentence)
