"""From a name to an encoder: families, folders and the model hub."""

from pathlib import Path
from typing import Any

import pytest

from nnpm.training.errors import TrainingError
from nnpm.training.network.encoders import ENCODERS, load_pretrained
from nnpm.training.network.encoders.whisper import Whisper
from tests.support.tiny_network import write_whisper


class Quiet(Whisper):
    """An encoder of somebody's package."""

    family = "quiet"


def test_families_are_told_by_name(tiny_encoder: Path) -> None:
    assert ENCODERS.names() == ("whisper", "huggingface", "onnx")
    with pytest.raises(TrainingError, match="there is no encoder wisper; choose among whisper"):
        load_pretrained("wisper", str(tiny_encoder), 0)


@pytest.mark.parametrize("source", ["nowhere", "/no/where", "./no/where", "a/b/c", "~/nowhere"])
def test_a_folder_that_is_not_there_is_one_line(source: str) -> None:
    with pytest.raises(TrainingError, match=r"there is no such folder$"):
        load_pretrained("whisper", source, 0)


def test_a_hub_that_cannot_be_reached_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def unreachable(*_: Any, **__: Any) -> str:
        raise OSError("line one\nline two")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    with pytest.raises(TrainingError, match=r"model hub does not give it \(OSError\)") as caught:
        load_pretrained("whisper", "openai/whisper-none", 0)
    assert "\n" not in str(caught.value)


def test_a_hub_gives_only_what_the_family_reads(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import huggingface_hub

    asked = []

    def download(source: str, *, allow_patterns: list[str]) -> str:
        asked.append((source, allow_patterns))
        return str(write_whisper(tmp_path / "snapshot"))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert load_pretrained("whisper", "openai/whisper-tiny", 1).width == 16
    assert asked == [("openai/whisper-tiny", ["config.json", "model.safetensors"])]
    assert ENCODERS.find("onnx").files == ("*.onnx",)


def test_an_encoder_may_be_anybodys(tiny_encoder: Path) -> None:
    encoder = load_pretrained(f"{__name__}:Quiet", str(tiny_encoder), 1)
    assert isinstance(encoder, Quiet)
    for name in (f"{__name__}:Path", f"{__name__}:tiny_encoder", "nowhere.at.all:Quiet"):
        with pytest.raises(TrainingError, match=r"is no encoder of nnpm|cannot be imported"):
            load_pretrained(name, str(tiny_encoder), 1)
