"""Pseudo labels of a whole target set: the memory's emotions as a mixture that moves to it."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ..config import MixtureConfig
from ..head import Floats, Ints
from .method import softmax

Doubles = NDArray[np.float64]

_CLOSED = -1e4
_TINY = 1e-8
_RIDGE = 1e-3
"""Of a covariance, relative to its mean variance (or to 1, which is less than that of logits)."""


def mixture_labels(
    source_logits: Floats,
    source_emotion: Ints,
    target_logits: Floats,
    start: Floats,
    config: MixtureConfig,
    voice: Ints | None = None,
    given: tuple[Ints, Ints] | None = None,
) -> Floats:
    """Answer a target set as a whole, from where the memory's emotions lie among its clips.

    A clip of emotion c and voice v is taken to be drawn from a Gaussian around
    ``m_c + language + d_c + u_v``, in the space that tells the memory's emotions apart. ``m_c`` is
    the memory's mean of the emotion. The shift of the language, which all clips share, is free; the
    shift ``d_c`` of one emotion, that of one voice, the spread, and the emotions' shares are drawn
    to none, to none, to what it is at the start, and to equal shares, each with the weight of some
    clips: a share of all, where there are many, because the assumptions are no truer of more clips.
    Expectation maximisation estimates all of them together. So a language's shift is not taken for
    a change of the shares, nor the other way round.

    References:
        The method of arXiv 2108.08663 takes pseudo labels from the memory, clip by clip. Ours is a
        Gaussian mixture with tied covariance and maximum a posteriori means (Gauvain & Lee, IEEE
        Transactions on Speech and Audio Processing 1994, adapt speech models to speakers so) on
        the classifier's logits; the voice is a random effect.

    Args:
        source_logits: of the memory's slots, shape ``(slots, emotions)``.
        source_emotion: their emotions, shape ``(slots,)``.
        target_logits: of the clips, shape ``(clips, emotions)``.
        start: first answers, shape ``(clips, emotions)``; an emotion that has no share in them, or
            no slot in the memory, stays closed.
        config: how many clips each part counts as.
        voice: number of each clip's voice, shape ``(clips,)``; None if voices do not matter.
        given: places of clips whose emotion is known, and their emotions.

    Returns:
        Probabilities, shape ``(clips, emotions)``.
    """
    emotions = start.shape[1]
    allowed = (start.sum(0) > 0) & np.isin(np.arange(emotions), source_emotion)
    allowed[start.sum(0).argmax()] = True
    means, space = _emotion_space(source_logits, source_emotion, emotions)
    clips = target_logits.astype(np.float64) @ space
    start = np.where(allowed, start, 0.0)
    start = (start / np.maximum(start.sum(1, keepdims=True), np.float32(_TINY))).astype(np.float32)
    answers = _with_given(start.astype(np.float64), given)
    rest = clips - answers @ means
    usual = max(1.0, float(np.square(rest - rest.mean(0)).mean())) * np.eye(clips.shape[1])
    by_voice = _voice_shift(voice, config.voice_clips)
    anchor = max(config.least_clips, config.mean_share * len(clips))
    even = max(config.least_clips, config.even_share * len(clips))
    own, voiced = np.zeros_like(means), np.zeros_like(clips)
    for number in range(config.rounds):
        count = answers.sum(0)[:, None]
        heard = clips - voiced
        language = (heard - answers @ (means + own)).mean(0)
        own = (answers.T @ heard - count * (means + language)) / (count + anchor)
        centres = means + language + own
        if number >= config.rounds_before_voices:
            voiced = by_voice(clips - answers @ centres)
            heard = clips - voiced
        apart = heard[:, None] - centres
        spread = np.einsum("nc,nci,ncj->ij", answers, apart, apart)
        spread = (spread + config.spread_clips * usual) / (len(clips) + config.spread_clips)
        shares = np.log(count[:, 0] + even)
        distance = np.einsum("nci,ij,ncj->nc", apart, np.linalg.inv(spread), apart)
        likely = softmax(np.where(allowed, shares - 0.5 * distance, _CLOSED))
        answers = _with_given(likely.astype(np.float64), given)
    share = config.start_share
    mixed = _with_given((1.0 - share) * answers + share * start, given)
    return mixed.astype(np.float32)


def _with_given(answers: Doubles, given: tuple[Ints, Ints] | None) -> Doubles:
    if given is not None:
        answers[given[0]] = np.eye(answers.shape[1])[given[1]]
    return answers


def _voice_shift(voice: Ints | None, clips: float) -> Callable[[Doubles], Doubles]:
    """What clips of one voice have in common, drawn to nothing by the weight of some clips."""
    if voice is None:
        return np.zeros_like
    member = np.eye(int(voice.max()) + 1)[voice]
    return lambda rest: member @ ((member.T @ rest) / (member.sum(0)[:, None] + clips))


def _emotion_space(logits: Floats, emotion: Ints, emotions: int) -> tuple[Doubles, Doubles]:
    """Means of the memory's emotions in the space that tells them apart, and the way there.

    Fisher's discriminants: directions scaled to unit variance within an emotion (each emotion
    counts alike), of which those between the means are kept.

    Returns:
        Shapes ``(emotions, space)`` and ``(emotions, space)``.
    """
    logits = logits.astype(np.float64)
    member = np.eye(emotions)[emotion]
    count = np.maximum(member.sum(0), 1)[:, None]
    means = member.T @ logits / count
    apart = (logits - means[emotion]) / np.sqrt(count[emotion])
    within = apart.T @ apart / (member.sum(0) > 0).sum()
    within += _RIDGE * max(1.0, np.trace(within) / emotions) * np.eye(emotions)
    variance, direction = np.linalg.eigh(within)
    white = direction / np.sqrt(variance)
    known = means[member.sum(0) > 0]
    _, _, axes = np.linalg.svd((known - known.mean(0)) @ white, full_matrices=False)
    space = white @ axes[: max(1, len(known) - 1)].T
    return (means - known.mean(0)) @ space, space
