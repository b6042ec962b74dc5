from pathlib import Path

import pytest

from nnpm.training import config
from nnpm.training.errors import TrainingError


def test_the_committed_recipe_is_valid() -> None:
    assert config.load(config.DEFAULT).train.epochs > 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[train]\nepochs = 0", "train.epochs is 0; it must be at least 1"),
        ("[train]\nepoch = 3", "there is no setting train.epoch"),
        ("[augment]\nnoise_p = 1.5", "augment.noise_p is 1.5; it must be at most 1"),
        ("[train\n", "is not a TOML file"),
        ('emotions = ["hapy"]', "emotions.0: hapy is no emotion; choose among angry, calm"),
        (
            "[augment]\nshortest_crop = 200",
            "shortest_crop is 200; it must be at most longest_crop",
        ),
        ("[augment]\nmixup_alpha = 0", "augment.mixup_alpha is 0; it must be above 0"),
        ("[encoder]\ndepths = [1, 1]", r"encoder: depths has 2 values; .* as channels \(4\)"),
        (
            "[encoder]\nchannels = [4]\ndepths = [1]",
            r"channels.0 is 4; it must be at least 8",
        ),
        ("[front_end]\nlow_hz = 7700", r"low_hz is 7700; it must be below high_hz \(7600\)"),
        ("[front_end]\nwin_length = 1024", "win_length is 1024; it must be at most 512"),
        ("[front_end]\nn_mels = 20", "n_mels is 20; with functionals it must be a multiple of 8"),
        (
            "[front_end]\nwin_length = 500\nhop_length = 500",
            "is 500; with functionals.* at most 320",
        ),
        ("[functionals]\nsteps = 0", "functionals.steps is 0; it must be at least 1"),
        ("[train]\nsteps_per_epoch = -1", "is -1; it must be at least 0"),
        ("[train]\nbatch_size = 1", "is 1; it must be at least 2"),
        ("[train]\nepochs = 'many'", "train.epochs is many; it must be a whole number"),
        ("[train]\nprecision = 'half'", "precision is half; it must be 'auto', 'float32' or"),
        ("train = 3", "train is 3; it must be a section"),
        ("[train]\nlearning_rate = nan", "train.learning_rate is nan; it must be a finite number"),
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
    with pytest.raises(TrainingError, match="is not a TOML file"):
        config.load(tmp_path / "binary.toml")
