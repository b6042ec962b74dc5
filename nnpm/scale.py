"""nnpm on Ray Serve: ``serve run nnpm.scale:app``. Needs the extra ``scale``."""

from .service.scale.deployment import application

app = application()

__all__ = ["app"]
