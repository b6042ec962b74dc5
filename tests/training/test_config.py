from pathlib import Path

import pytest

from nnpm.training import config
from nnpm.training.errors import TrainingError


def test_the_committed_recipe_is_valid() -> None:
    assert config.load(config.DEFAULT).train.epochs > 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[train]\nepochs = 0", "train.epochs: Input should be greater than or equal to 1"),
        ("[train]\nepoch = 3", "train.epoch: Extra inputs are not permitted"),
        ("[augment]\nnoise_p = 1.5", "augment.noise_p: Input should be less than or equal to 1"),
        ("[train\n", "is not TOML"),
        ('emotions = ["hapy"]', "emotions.0: 'hapy' is none of angry, calm"),
        ("[augment]\nshortest_crop = 200", "shortest_crop 200 is above longest_crop 156"),
        ("[augment]\nmixup_alpha = 0", "augment.mixup_alpha: Input should be greater than 0"),
        ("[encoder]\ndepths = [1, 1]", "encoder: 2 depths for 4 channels"),
        ("[encoder]\nchannels = [4]\ndepths = [1]", "greater than or equal to 8"),
        ("[front_end]\nlow_hz = 7700", "low_hz 7700 is not below high_hz 7600"),
        ("[front_end]\nwin_length = 1024", "less than or equal to 512"),
        ("[front_end]\nn_mels = 20", "n_mels 20 is not 24 or more in eights"),
        ("[front_end]\nwin_length = 500\nhop_length = 500", "hop_length 500 is above 320"),
        ("[functionals]\nsteps = 0", "functionals.steps: Input should be greater than"),
        ("[train]\nsteps_per_epoch = -1", "greater than or equal to 0"),
        ("[train]\nbatch_size = 1", "greater than or equal to 2"),
        ("[train]\nlearning_rate = nan", "train.learning_rate: Input should be"),
    ],
)
def test_a_wrong_recipe_is_one_sentence(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    with pytest.raises(TrainingError, match=message):
        config.load(path)


def test_without_functionals_any_front_end_will_do(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text("[front_end]\nn_mels = 20\n[functionals]\nenabled = false")
    assert config.load(path).front_end.n_mels == 20


def test_a_missing_recipe_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="cannot read the configuration"):
        config.load(tmp_path / "none.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(TrainingError, match="is not TOML"):
        config.load(tmp_path / "binary.toml")
