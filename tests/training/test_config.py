from pathlib import Path

import pytest

from nnpm.training import config
from nnpm.training.errors import TrainingError


def test_the_committed_recipe_is_valid() -> None:
    recipe = config.load(config.DEFAULT)
    assert recipe.encoder.source == "openai/whisper-base"
    assert "calm" not in recipe.emotions


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[train]\nsteps = 0", "train.steps is 0; it must be at least 1"),
        ("[train]\nepochs = 3", "there is no setting train.epochs"),
        ("[functionals]\nsteps = 3", "there is no setting functionals"),
        ("[augment]\njoin_p = 1.5", "augment.join_p is 1.5; it must be at most 1"),
        ("[train\n", "is not a TOML file"),
        ('emotions = ["hapy"]', "emotions.0: hapy is no emotion; choose among angry, calm"),
        ("[augment]\nshortest_s = 5", "shortest_s is 5; it must be at most longest_s"),
        ("[augment]\nlongest_s = 31", "augment.longest_s is 31; it must be at most 10"),
        ("[loss]\ncontrast_temperature = 0", "contrast_temperature is 0; it must be above 0"),
        ("[encoder]\nlayers = -1", "encoder.layers is -1; it must be at least 0"),
        ("[encoder]\nsource = 3", "encoder.source is 3; it must be text"),
        ("[train]\nlayer_decay = 1.1", "layer_decay is 1.1; it must be at most 1"),
        ("[train]\nbatch_size = 1", "is 1; it must be at least 4"),
        ("[train]\nsteps = 'many'", "train.steps is many; it must be a whole number"),
        ("[train]\nprecision = 'half'", "precision is half; it must be 'auto', 'float32' or"),
        ("[split]\nheld_out_share = 0.5", "held_out_share is 0.5; it must be at most 0.33"),
        ("train = 3", "train is 3; it must be a section"),
        ("[train]\nhead_rate = nan", "train.head_rate is nan; it must be a finite number"),
    ],
)
def test_a_wrong_recipe_is_one_sentence(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    with pytest.raises(TrainingError, match=message):
        config.load(path)


def test_a_missing_recipe_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="cannot read the configuration"):
        config.load(tmp_path / "none.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(TrainingError, match="is not a TOML file"):
        config.load(tmp_path / "binary.toml")


def test_changes_override_the_file(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text("[encoder]\nlayers = 2\n[train]\nsteps = 7")
    found = config.load(
        path,
        [
            "encoder.layers=4",
            "encoder.source=/data/a folder",  # what is no TOML is text
            "train.encoder_rate = 1e-4",
            'emotions=["sad", "angry"]',
        ],
    )
    assert (found.encoder.layers, found.encoder.source) == (4, "/data/a folder")
    assert (found.train.steps, found.train.encoder_rate) == (7, 1e-4)
    assert found.emotions == ("sad", "angry")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("encoder.layers", "--set is 'encoder.layers'; it must be section.name=value"),
        ("=3", "--set is '=3'; it must be section.name=value"),
        ("encoder.=3", "it must be section.name=value"),
        ("train.steps.more=3", "--set is 'train.steps.more=3'; steps is no section"),
        ("train.stepps=3", "there is no setting train.stepps"),
        ("train.steps=many", "train.steps is many; it must be a whole number"),
        ("train=3", "train is 3; it must be a section"),
    ],
)
def test_a_wrong_change_is_one_sentence(tmp_path: Path, change: str, message: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text("[train]\nsteps = 7")
    with pytest.raises(TrainingError, match=message) as caught:
        config.load(path, [change])
    assert "\n" not in str(caught.value)
