"""The names of the ways to adapt; training/adaptation has the ways themselves."""

METHODS = (
    "source_only",
    "adabn",
    "coral",
    "mmd",
    "dann",
    "entropy",
    "self_training",
    "nnpm",
)

DEFAULT_METHOD = "nnpm"
