"""The emotion vocabulary. The order in force for a prediction is its bundle's."""

EMOTIONS = ("angry", "calm", "disgust", "fear", "happy", "neutral", "sad", "surprise")
"""Every emotion that a corpus module may answer; calm is not neutral."""

CORE_EMOTIONS = ("angry", "happy", "neutral", "sad")
"""The four that all corpora share: those of the published tables."""
