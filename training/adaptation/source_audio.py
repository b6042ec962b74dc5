"""The source with its audio, for what a memory cannot do: to move the encoder."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from service.inference.bundle import Memory
from service.inference.card import Card
from training.answering import remember
from training.clips import load_clips
from training.corpora import Utterance, load, load_folder
from training.corpora.manifest import MANIFEST
from training.errors import TrainingError
from training.features import load_features
from training.network import Network
from training.ragged import Ragged


@dataclass(frozen=True, slots=True, eq=False)
class SourceAudio:
    """Labelled source clips.

    Attributes:
        utterances: in order.
        emotion: index of the logit, int64, shape ``(clips,)``.
        clips: their samples.
        features: their log-mel power before normalisation.
    """

    utterances: list[Utterance]
    emotion: Tensor
    clips: Ragged
    features: Ragged

    def memory(self, network: Network) -> Memory:
        """One pass over the clips: the memory of ``network``."""
        return remember(network, self.utterances, self.clips)


def load_source(
    folder: Path, corpora: tuple[str, ...], card: Card, network: Network, cache: Path
) -> SourceAudio:
    """Read the source corpora of a bundle.

    Speakers that the card names as held out stay out, and so do emotions that it does not know.

    Args:
        folder: holds one folder per corpus; or is the one corpus, with its metadata.csv.
        corpora: names; empty for those that the card names.
        card: of the bundle.
        network: of the bundle; its front end makes the features.
        cache: folder for decoded clips.

    Raises:
        CorpusError: if a corpus cannot be read.
        TrainingError: if an emotion of the bundle has no clip.
    """
    trained: list[dict[str, object]] = card.training.get("corpora", [])
    names = corpora or tuple(str(corpus["name"]) for corpus in trained)
    if not corpora and (folder / MANIFEST).is_file():
        found = load_folder(folder)
    else:
        found = [utterance for name in names for utterance in load(name, folder)]
    out = _held_out(trained)
    kept = [u for u in found if u.emotion in card.labels and (u.corpus, u.speaker) not in out]
    if missing := set(card.labels) - {u.emotion for u in kept}:
        raise TrainingError(
            f"the bundle knows {len(card.labels)} emotions, and the source in {folder} has no clip "
            f"of {', '.join(sorted(missing))}"
        )
    clips = load_clips(kept, cache)
    emotion = torch.tensor([card.labels.index(u.emotion) for u in kept])
    return SourceAudio(kept, emotion, clips, load_features(clips, network.config.front_end))


def _held_out(trained: list[dict[str, object]]) -> set[tuple[str, str]]:
    """Corpus and speaker of those that calibrate and test the base."""
    held_out = set()
    for corpus in trained:
        speakers = corpus.get("speakers", {})
        assert isinstance(speakers, dict)
        for side in ("validation", "test"):
            held_out |= {(str(corpus["name"]), speaker) for speaker in speakers.get(side, [])}
    return held_out
