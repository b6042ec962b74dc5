"""The protocols of docs/method.md: what is learnt from, and what it is tried on."""

from dataclasses import dataclass

from training.adaptation import METHODS


@dataclass(frozen=True, slots=True)
class Protocol:
    """Source and target corpora.

    Attributes:
        name: as users call it.
        source: corpora with labels.
        targets: corpora whose labels are used to score alone.
        outside: targets that are no part of the means.
        uncurated: targets that are also adapted to with all their clips, whatever the emotion.
        whole: targets whose speakers cannot be halved.
    """

    name: str
    source: tuple[str, ...]
    targets: tuple[str, ...]
    outside: tuple[str, ...] = ()
    uncurated: tuple[str, ...] = ("ased",)
    whole: tuple[str, ...] = ("urdu",)
    """Nearly every speaker of Urdu speaks in one emotion only."""


_TEST = ("urdu", "emodb", "ased", "emotiontts")

PROTOCOLS = {
    "P1": Protocol("P1", ("ravdess",), (*_TEST, "nemo"), outside=("nemo",)),
    "P2": Protocol("P2", ("ravdess", "nemo"), _TEST),
}
"""The paper's setting, and the product's."""

STUDIED = ("source_only", "adabn", "entropy", "nnpm")
"""The methods of the studies; the tables have all that were asked for."""


def all_methods() -> tuple[str, ...]:
    """Every method there is, the one that is tried last."""
    return tuple(sorted(METHODS, key=lambda name: name == "nnpm"))
