from pathlib import Path

import pytest

from training import config
from training.errors import TrainingError

DEFAULT = Path(config.__file__).parent / "configs" / "default.toml"


def test_the_committed_recipe_is_valid() -> None:
    assert config.load(DEFAULT).train.epochs > 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[train]\nepochs = 0", "train.epochs: Input should be greater than or equal to 1"),
        ("[train]\nepoch = 3", "train.epoch: Extra inputs are not permitted"),
        ("[augment]\nnoise_p = 1.5", "augment.noise_p: Input should be less than or equal to 1"),
        ("[train\n", "is not TOML"),
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
