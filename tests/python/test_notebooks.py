"""The notebooks of the documentation run, on recordings made by code."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.support.sounds import speechlike

nbformat = pytest.importorskip("nbformat", reason="the group test-train has the notebooks' tools")
nbclient = pytest.importorskip("nbclient", reason="the group test-train has the notebooks' tools")

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "docs/use/notebooks").glob("*.ipynb"))

MADE = {"predict": ("results.csv",), "adapt": ("adapted/bundle.json",)}


@pytest.mark.slow  # a kernel each; the second one imports torch and adapts
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recordings = tmp_path / "recordings"
    recordings.mkdir()
    for number in range(24):
        clip = speechlike(1.5 + 0.05 * number, seed=number)
        soundfile.write(recordings / f"{number:02}.wav", clip, 16_000)
    soundfile.write(
        recordings / "call.wav",
        np.stack([speechlike(8.0), speechlike(8.0, seed=9)], axis=1),
        16_000,
    )
    (recordings / "broken.wav").write_bytes(b"nothing")
    lines = ["path,emotion", *(f"{number:02}.wav,sad" for number in range(24))]
    (recordings / "metadata.csv").write_text("\n".join(lines))
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.setenv("NNPM_MODELS", str(ROOT / "models"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(path, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)
    nbclient.NotebookClient(
        notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    assert [name for name in MADE[path.stem] if not (tmp_path / name).exists()] == []
    texts = [
        output["text"]
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if output["output_type"] == "stream"
    ]
    assert any(text.startswith(("25 recordings, 1 failed", "before accuracy")) for text in texts)
    assert not any("Warning" in text for text in texts)
