"""Which files of a folder are recordings, and what is said of the others."""

import os
from pathlib import Path

import pytest

from nnpm.service.inference.audio.formats import audio_files, describe_passed_over
from tests.support.sounds import encode, speechlike

pytestmark = pytest.mark.smoke

RECORDINGS = (
    "a.wav", "b.weba", "c.3gpp", "d.mpga", "e.aifc", "f.WAVE", "g.spx", "recording",
    "call 15.01.2024", "deeper/h.flac",
)  # fmt: skip
OTHERS = {
    "not_audio": ["notes.txt", "metadata.csv", "Makefile", "v1.2"],
    "hidden": [".a.wav", "._b.wav", ".Trash-1000/a.wav", "deeper/.cache/a.wav"],
    "system_folder": [
        "#recycle/a.wav", "@eaDir/a.wav/SYNOAUDIO.mp3", "__MACOSX/._a.wav", "$RECYCLE.BIN/a.wav",
    ],
    "not_a_file": ["pipe.wav", "broken.wav"],
}  # fmt: skip


def test_what_a_folder_holds(tmp_path: Path) -> None:
    flac = encode(speechlike(), container="FLAC")
    for name in (*RECORDINGS, *OTHERS["hidden"], *OTHERS["system_folder"]):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(flac)
    for name in OTHERS["not_audio"]:
        (tmp_path / name).write_text("text")
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "broken.wav").symlink_to("nowhere")
    content = audio_files(tmp_path)
    assert content.recordings == sorted(tmp_path / name for name in RECORDINGS)
    assert {k: sorted(v) for k, v in content.passed_over.items()} == {
        k: sorted(v) for k, v in OTHERS.items()
    }
    assert "4 not_audio (" in describe_passed_over(content.passed_over)
