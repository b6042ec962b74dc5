"""nnpm on Ray Serve: ``serve run nnpm.scale:app``. Needs the extra ``scale``."""

from typing import Any


def __getattr__(name: str) -> Any:
    """Make the application when ``serve`` asks for it (PEP 562): importing Ray takes a second."""
    if name != "app":
        raise AttributeError(f"module 'nnpm.scale' has no attribute {name!r}")
    from .service.scale.deployment import application

    return application()
