"""Sentences about invalid fields: ours, for every kind of error that users meet."""

from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, StrictInt, ValidationError, field_validator

from nnpm.service.inference.errors import validation_detail


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Fields(BaseModel):
    model_config = ConfigDict(extra="forbid")

    least: int = Field(default=1, ge=1)
    most: float = Field(default=1.0, le=0.5, validate_default=False)
    above: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    below: int = Field(default=1, lt=9)
    strict: StrictInt = 1
    one_of: Literal["mix", "split"] = "mix"
    colour: Colour = Colour.RED
    flag: bool = True
    text: Annotated[str, Field(min_length=2, max_length=4)] = "abc"
    shaped: Annotated[str, Field(pattern=r"^[a-z]+$")] = "a"
    few: Annotated[list[int], Field(min_length=1, max_length=2)] = [1]
    pair: tuple[str, ...] = ()
    folder: Path = Path()
    mapping: dict[str, int] = {}
    inner: "Inner | None" = None
    checked: str = ""

    @field_validator("checked")
    @classmethod
    def _check(cls, value: str) -> str:
        if value:
            raise ValueError("checked is wrong; it must be empty.")
        return value


class Inner(BaseModel):
    needed: int


SENTENCES: list[tuple[dict[str, Any], str]] = [
    ({"least": 0}, "least is 0; it must be at least 1."),
    ({"least": "0"}, "least is 0; it must be at least 1."),
    ({"most": 0.75}, "most is 0.75; it must be at most 0.5."),
    ({"above": -1.0}, "above is -1; it must be greater than 0."),
    ({"above": "nan"}, "above is nan; it must be a finite number."),
    ({"below": 9}, "below is 9; it must be less than 9."),
    ({"least": "many"}, "least is many; it must be a whole number."),
    ({"least": 1.5}, "least is 1.5; it must be a whole number."),
    ({"least": "9" * 5000}, f"least is '{'9' * 65}; it must be a smaller number."),
    ({"strict": "1"}, "strict is '1'; it must be a whole number."),
    ({"strict": True}, "strict is true; it must be a whole number."),
    ({"most": "x y"}, "most is 'x y'; it must be a number."),
    ({"most": None}, "most is null; it must be a number."),
    ({"one_of": "left"}, "one_of is left; it must be mix or split."),
    ({"colour": "green"}, "colour is green; it must be red or blue."),
    ({"flag": "perhaps"}, "flag is perhaps; it must be true or false."),
    ({"flag": []}, "flag is a list; it must be true or false."),
    ({"text": "a"}, "text has 1 character; it must have at least 2."),
    ({"text": "abcde"}, "text has 5 characters; it must have at most 4."),
    ({"text": 7}, "text is 7; it must be text."),
    ({"shaped": "A"}, "shaped is A; it must have the form that the documentation shows."),
    ({"few": []}, "few has 0 entries; it must have at least 1."),
    ({"few": [1, 2, 3]}, "few has 3 entries; it must have at most 2."),
    ({"few": {}}, "few is an object; it must be a list."),
    ({"pair": 1}, "pair is 1; it must be a list."),
    ({"folder": 1}, "folder is 1; it must be a path."),
    ({"mapping": "a"}, "mapping is 'a'; it must be a JSON object."),
    ({"inner": 3}, "inner is 3; it must be a JSON object."),
    ({"inner": {}}, "inner.needed is missing."),
    ({"unknown": 3}, "unknown is not a known field."),
    ({"checked": "x"}, "checked is wrong; it must be empty."),
]


@pytest.mark.parametrize(("given", "sentence"), SENTENCES)
def test_each_kind_has_a_sentence_of_ours(given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Fields.model_validate(given)
    assert validation_detail(caught.value.errors()) == sentence


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "The body is not valid JSON."),
        ("[]", "The body is a list; it must be a JSON object."),
        ("null", "The body is null; it must be a JSON object."),
        (b'{"text": "\xff"}', "The body is not valid JSON."),
    ],
)
def test_a_document_that_is_no_object(text: str, sentence: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Fields.model_validate_json(text)
    assert validation_detail(caught.value.errors(), document="The body") == sentence


def test_users_see_the_names_that_they_write() -> None:
    with pytest.raises(ValidationError) as caught:
        Fields.model_validate({"least": 0, "one_of": "left"})
    found = validation_detail(caught.value.errors(), name=lambda field: f"NNPM_{field.upper()}")
    assert found == (
        "NNPM_LEAST is 0; it must be at least 1. NNPM_ONE_OF is left; it must be mix or split."
    )
    assert "ONE_OF" not in validation_detail(caught.value.errors(), limit=1)
