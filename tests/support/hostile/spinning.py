"""Files that send libsndfile 1.2.2 round for ever."""

import struct

from tests.support.sounds import encode, speechlike


def spinning_wav(subtype: str = "IMA_ADPCM", container: str = "WAV") -> bytes:
    """A WAV with a piece of size -8 in its LIST chunk; plain samples never reach libsndfile."""
    clip = encode(speechlike(0.5), container=container, subtype=subtype)
    at = clip.index(b"data")
    info = struct.pack("<4sI4s4si", b"LIST", 12, b"INFO", b"xxxx", -8)
    return clip[:at] + info + clip[at:]
