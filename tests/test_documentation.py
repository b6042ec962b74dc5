"""README and docs are true: links, file names, commands, settings, recipes, pages."""

import json
import re
import tomllib
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from pydantic import TypeAdapter

from nnpm.service.api.app import create_app
from nnpm.service.api.errors import Kind, all_kinds
from nnpm.service.settings import Settings
from nnpm.training.cli import build_parser
from nnpm.training.config import Config
from nnpm.training.corpora import Utterance
from nnpm.training.evaluation import Verdict, report

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
FOLDERS = "service|training|nnpm|tests|docs|benchmarks|scripts|deploy"
CODE_BLOCK = re.compile(r"^ *```(\w*)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, language: str) -> list[str]:
    return [text for kind, text in CODE_BLOCK.findall(page.read_text("utf-8")) if kind == language]


def tracked() -> set[str]:
    """The repository's own text files outside of results and models."""
    folders = [ROOT / name for name in (*FOLDERS.split("|"), "docker")]
    found = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    found += [path for path in ROOT.iterdir() if path.is_file()]
    names = {path.relative_to(ROOT).as_posix() for path in found}
    return {name for name in names if not name.startswith("benchmarks/results/")}


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z][a-z-]*):", read("Makefile"), re.MULTILINE))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_relative_links_resolve(page: Path) -> None:
    prose = CODE_BLOCK.sub("", page.read_text("utf-8"))
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", prose)]
    relative = [link for link in links if link and not re.match(r"[a-z]+:", link)]
    assert [link for link in relative if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_files_that_are_named_exist(page: Path) -> None:
    named = re.findall(rf"`((?:{FOLDERS})/[\w./-]+)`", page.read_text("utf-8"))
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_pages_that_other_files_name_exist() -> None:
    """Comments, docstrings and settings send readers to pages, which move."""
    skipped = {"CHANGELOG.md", "tests/test_documentation.py"}
    missing = set()
    for name in tracked() - skipped:
        if name.endswith((".py", ".md", ".toml", ".yml", ".yaml", ".sh", ".example", "Makefile")):
            for page in re.findall(r"\bdocs/[\w/-]+\.(?:md|svg)\b", read(name)):
                if not (ROOT / page).exists():
                    missing.add((name, page))
    assert missing == set()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_make_targets_that_are_named_exist(page: Path) -> None:
    named = re.findall(r"(?:`|^)make ([a-z-]+)", page.read_text("utf-8"), re.MULTILINE)
    assert set(named) <= make_targets()


def test_the_readme_begins_with_two_commands() -> None:
    first, *_ = blocks(ROOT / "README.md", "bash")
    assert re.findall(r"^make (\w+)", first, re.MULTILINE) == ["serve", "test"]


def test_the_hooks_run_what_make_check_runs() -> None:
    (checks,) = re.findall(r"^check: (.*?) ##", read("Makefile"), re.MULTILINE)
    hooks = re.findall(r"entry: make .* (check-\w+)", read(".pre-commit-config.yaml"))
    assert hooks == checks.split()


def test_every_page_is_in_the_navigation() -> None:
    in_navigation = re.findall(r": (\S+\.md)$", read("mkdocs.yml"), re.MULTILINE)
    docs = ROOT / "docs"
    assert sorted(in_navigation) == sorted(
        page.relative_to(docs).as_posix() for page in docs.rglob("*.md")
    )


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_described_with_its_default(name: str) -> None:
    row = rf"^\| `NNPM_{name.upper()}` \| (\S+).*? \|"
    (default,) = re.findall(row, read("docs/use/settings.md"), re.MULTILINE)
    field = Settings.model_fields[name]
    if field.default in ((), None):
        assert default == "none"
    elif field.default_factory is None:
        assert TypeAdapter(field.annotation).validate_python(default) == field.default


@pytest.mark.parametrize("kind", all_kinds())
def test_every_error_is_described_with_its_status(kind: Kind) -> None:
    rows = re.findall(rf"^\| (\d+) \|.*`{kind.code}`", read("docs/use/errors.md"), re.MULTILINE)
    assert rows == [str(kind.status)]


def test_every_metric_is_described(tmp_path: Path) -> None:
    with TestClient(create_app(Settings(models=tmp_path))) as client:
        ours = re.findall(r"^# TYPE (nnpm_\w+) ", client.get("/metrics").text, re.MULTILINE)
    described = re.findall(r"^\| (`nnpm_.*?) \|", read("docs/operate/monitoring.md"), re.MULTILINE)
    described = re.findall(r"nnpm_\w+", " ".join(described))
    assert sorted(described) == sorted(name for name in ours if not name.endswith("_created"))


@pytest.mark.parametrize("section", [n for n in Config.model_fields if n != "emotions"])
def test_every_section_of_a_recipe_is_described(section: str) -> None:
    assert f"`[{section}]`" in read("docs/research/training.md")


def test_every_figure_of_evaluate_is_described() -> None:
    clip = Utterance(ROOT / "a.wav", "corpus", "speaker", "und", "sad")
    figures = report(
        [Verdict(clip, "sad", 0.9, {"sad": 0.9, "angry": 0.1}, False)], ["sad", "angry"]
    )
    page = read("docs/research/training.md")
    assert [name for name in figures if f"`{name}`" not in page] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_recipes_and_json_are_valid(page: Path) -> None:
    for text in blocks(page, "toml"):
        Config.model_validate(tomllib.loads(text))
    for text in blocks(page, "json"):
        json.loads(text)


def test_training_options_that_are_named_exist() -> None:
    """Parsed, not run: `nnpm train ...` in a code block is a command that can be typed."""
    parser = build_parser()
    for page in PAGES:
        for line in "\n".join(blocks(page, "bash")).splitlines():
            if match := re.match(r"nnpm ((?:train|export|evaluate) .*)", line):
                parser.parse_args(match[1].split())
