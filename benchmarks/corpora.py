"""Clips of the corpora in a folder, in an order of chance that is always the same."""

import csv
import random
from itertools import chain, zip_longest
from pathlib import Path


def clips_by_corpus(data: Path) -> list[list[Path]]:
    """The clips of each corpus with a metadata.csv, shuffled."""
    corpora = []
    for manifest in sorted(data.glob("*/metadata.csv")):
        with manifest.open(newline="", encoding="utf-8") as file:
            paths = [(manifest.parent / row["path"]).resolve() for row in csv.DictReader(file)]
        random.Random(0).shuffle(paths)
        corpora.append(paths)
    return corpora


def clips_in_turn(data: Path) -> list[Path]:
    """One clip of each corpus after the other, until the longest corpus ends."""
    turns = zip_longest(*clips_by_corpus(data))
    return [clip for clip in chain.from_iterable(turns) if clip is not None]
