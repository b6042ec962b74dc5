"""nnpm: emotion recognition in speech that learns a new language from unlabelled audio.

``load`` gives a model that scores recordings here, ``Client`` and ``AsyncClient`` ask a service,
``adapt`` makes a bundle for another language; what cannot be done raises ``Error``. Names are
imported when they are first used, so that ``import nnpm`` costs nothing.

In a checkout ``nnpm/service`` and ``nnpm/training`` are links to the folders of the same name; a
wheel holds the folders themselves. So everything of ours lies under one name, and somebody's own
package called ``service`` is not in the way.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .adaptation import adapt as adapt
    from .answer import Answer as Answer
    from .async_client import AsyncClient as AsyncClient
    from .client import Client as Client
    from .errors import Error as Error
    from .model import Model as Model
    from .model import load as load
    from .requests import Job as Job

__version__ = "0.1.0"

_MODULES = {
    "Answer": "answer",
    "AsyncClient": "async_client",
    "Client": "client",
    "Error": "errors",
    "Job": "requests",
    "Model": "model",
    "adapt": "adaptation",
    "load": "model",
}
"""Where each public name is; the imports above say the same to type checkers."""

__all__ = [
    "Answer",
    "AsyncClient",
    "Client",
    "Error",
    "Job",
    "Model",
    "__version__",
    "adapt",
    "load",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used (PEP 562)."""
    if name not in _MODULES:
        raise AttributeError(f"module 'nnpm' has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_MODULES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
