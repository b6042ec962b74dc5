"""Given turns: their text, over HTTP and on the command line."""

import json
from pathlib import Path

import numpy as np
import pytest

from nnpm.service.cli import main
from nnpm.service.inference.answer import GivenTurn
from nnpm.service.inference.errors import TurnsError
from nnpm.service.predict.turns import check_turns, read_turns
from tests.support.sounds import encode, speechlike
from tests.support.tiny_bundle import write_tiny_bundle

RTTM = """SPKR-INFO call 1 <NA> <NA> <NA> unknown Ada <NA> <NA>
SPEAKER call 1 0.500 1.000 <NA> <NA> Ada <NA> <NA>

SPEAKER call 2 2.25 0.75 <NA> <NA> <NA> <NA> <NA>
"""


def test_rttm() -> None:
    assert read_turns(RTTM) == (
        GivenTurn(0.5, 1.5, 0, "Ada"),
        GivenTurn(2.25, 3.0, 1, None),
    )


def test_rttm_of_several_recordings() -> None:
    text = RTTM + "SPEAKER other 1 4 1 <NA> <NA> Bo <NA> <NA>\n"
    assert len(read_turns(text)) == 3
    assert read_turns(text, "folder/other.wav") == (GivenTurn(4, 5, 0, "Bo"),)
    assert len(read_turns(text, "call.flac")) == 2
    with pytest.raises(TurnsError, match="2 recordings"):
        read_turns(text, "third.wav")


BAD = {
    "": "turns has 0 turns",
    "[]": "turns has 0 turns",
    "[1]": "turns.0",
    "[{": "JSON",
    '{"start_s": 1}': "turns",
    '[{"start_s": 1}]': "turns.0.end_s is missing",
    '[{"start_s": 2, "end_s": 1}]': "end after it starts",
    '[{"start_s": -1, "end_s": 1}]': "turns.0.start_s is -1",
    '[{"start_s": 0, "end_s": 1e999}]': "turns.0.end_s",
    '[{"start_s": 0, "end_s": 1, "who": "Ada"}]': "who is not a known field",
    "start,end\n1,2\n": "Line 1 of turns is neither RTTM nor JSON",
    "SPEAKER call 1 0.5": "Line 1 of turns has no channel",
    "SPEAKER call one 0 1 <NA> <NA> A <NA> <NA>": "Line 1 of turns has no channel",
    "SPEAKER call 1 0 -1 <NA> <NA> A <NA> <NA>": "the duration must be above 0",
    "SPEAKER call 1 nan 1 <NA> <NA> A <NA> <NA>": "nan",
    "SPEAKER call 1 0 inf <NA> <NA> A <NA> <NA>": "inf",
    '[{"start_s": 0, "end_s": 1}' + ', {"start_s": 0, "end_s": 1}' * 10_000 + "]": "10001 turns",
}


@pytest.mark.parametrize("text", BAD)
def test_what_is_no_turn_is_named(text: str) -> None:
    with pytest.raises(ValueError, match=BAD[text].replace("-", r"\-")):
        check_turns(text)


def test_the_command_scores_a_file_of_turns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tiny_bundle(tmp_path / "bundle")
    call = np.stack([speechlike(4), speechlike(4, seed=1)], axis=1)
    (tmp_path / "call.wav").write_bytes(encode(call))
    (tmp_path / "call.rttm").write_text(RTTM)
    command = ["predict", str(tmp_path / "call.wav"), "--bundle", str(tmp_path / "bundle")]
    command += ["--json", "--channels", "split", "--turns"]
    assert main([*command, str(tmp_path / "call.rttm")]) == 0
    answer = json.loads(capsys.readouterr().out)
    found = [
        (one["start_s"], one["end_s"], one["channel"], one.get("speaker"))
        for one in answer["segments"]
    ]
    assert found == [(0.5, 1.5, 0, "Ada"), (2.25, 3.0, 1, None)]
    assert "speaker" not in answer["segments"][1]
    assert [one["speaker"] for one in answer["per_speaker"]] == ["Ada"]
    assert answer["per_speaker"][0]["scores"] == answer["segments"][0]["scores"]
    assert main([*command, str(tmp_path / "none.rttm")]) == 2
    (tmp_path / "late.json").write_text('[{"start_s": 3, "end_s": 9}]')
    assert main([*command, str(tmp_path / "late.json")]) == 2
    assert "from 3 to 9 s; it must end after it starts, within the 4.00 s" in (
        capsys.readouterr().err
    )
