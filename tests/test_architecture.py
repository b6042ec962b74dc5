"""docs/architecture.md shows the code as it is."""

import xml.etree.ElementTree as ElementTree

from scripts.picture import (
    PAGE,
    PICTURE,
    ROOT,
    arrows,
    description,
    imported,
    levels,
    modules,
    with_tree,
)


def test_the_list_of_files_is_current() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == with_tree(page), "run `make picture`"
    named = [word for line in page.splitlines() for word in line.split()[:1]]
    for part in ("service", "training"):
        for path in modules(part):
            assert path.name in named or path.name == "__init__.py"


def test_the_picture_is_current() -> None:
    metadata = ElementTree.parse(PICTURE).iter("{http://purl.org/dc/elements/1.1/}description")
    assert [element.text for element in metadata] == [description(arrows())], "run `make picture`"


def test_relative_imports_are_followed() -> None:
    recognizer = next(path for path in modules("service") if path.name == "recognizer.py")
    targets = {path.as_posix() for path in imported(recognizer)}
    assert "service/inference/answer.py" in targets
    assert all((ROOT / target).is_file() for target in targets)


def test_a_room_stands_above_what_it_imports() -> None:
    level, back = levels([("a", "b"), ("b", "c"), ("a", "c"), ("c", "b")])
    assert level == {"a": 2, "b": 1, "c": 0}
    assert back == {("c", "b")}
