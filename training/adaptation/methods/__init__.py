"""Adaptation methods, one file each; ``method.py`` has their contract."""

from ....service.jobs.folder import METHODS_GROUP
from ...plugins import Plugins
from .adabn import AdaBN
from .coral import Coral
from .dann import DANN
from .entropy import Entropy
from .method import Method
from .mmd import MMD
from .nnpm import NNPM
from .self_training import SelfTraining
from .source_only import SourceOnly

METHODS: dict[str, type[Method]] = {
    cls.name: cls for cls in (SourceOnly, AdaBN, Coral, MMD, DANN, Entropy, SelfTraining, NNPM)
}
"""All methods by name."""

PLUGINS = Plugins(
    METHODS_GROUP,
    "method",
    METHODS,
    lambda found: isinstance(found, type) and issubclass(found, Method),
)
"""These, and methods of installed packages."""
