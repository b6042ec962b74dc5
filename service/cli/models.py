"""``nnpm models``: show and change the models folder, and which version answers."""

import argparse
import json
import sys
from dataclasses import asdict
from typing import Any

from .. import settings
from ..command import UsageError
from ..inference import bundle
from ..inference.card import DEFAULT_NAME
from ..registry.opening import open_registry
from ..registry.registry import Aliases, Registry
from ..registry.serving import load_recognizer


def add(parser: argparse.ArgumentParser) -> None:
    """Add the actions of the command, and their options."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="list names, versions and aliases")
    listing.add_argument("--json", action="store_true", help="print what GET /models answers")
    show = actions.add_parser("show", help="print the card of one bundle as JSON")
    show.add_argument("model", metavar="NAME[/VERSION]")
    for action, text in {
        "promote": "let a version answer for a language",
        "shadow": "let a version score a language's requests without answering",
        "delete": "delete a version that no alias holds",
    }.items():
        change = actions.add_parser(action, help=text)
        change.add_argument("model", metavar="NAME/VERSION")
        if action != "delete":
            change.add_argument("--language", metavar="TAG", help="BCP-47 [the version's own]")
        if action == "shadow":
            change.add_argument("--off", action="store_true", help="end the shadow; NAME suffices")
    back = actions.add_parser("rollback", help="undo the latest promotion")
    back.add_argument("model", metavar="NAME", nargs="?", default=DEFAULT_NAME)
    back.add_argument("--language", metavar="TAG", help="BCP-47 [that of the latest promotion]")


def run(args: argparse.Namespace) -> int:
    """Show or change the models folder; a running service sees a change within two seconds."""
    registry = open_registry(settings.load())
    match args.action:
        case "list":
            _list(registry, as_json=args.json)
        case "show":
            card = bundle.load(registry.parse(args.model).path).card
            _print(card.model_dump_json(indent=2))
        case "rollback":
            _print_aliases(args.model, registry.rollback(args.model, args.language))
        case "shadow" if args.off:
            name = args.model.partition("/")[0]
            _print_aliases(name, registry.shadow(name, None, args.language))
        case action:
            name, version = _version(args.model)
            if action == "delete":
                registry.delete(name, version)
                _print(f"{name}/{version} is deleted")
                return 0
            load_recognizer(registry.resolve(name, version).path)  # fails unless its probe passes
            change = registry.promote if action == "promote" else registry.shadow
            _print_aliases(name, change(name, version, args.language))
    return 0


def _list(registry: Registry, *, as_json: bool) -> None:
    entries = [_entry(registry, name) for name in registry.names()]
    if as_json:
        _print(json.dumps({"models": entries}))
    elif not entries:
        _print(f"There is no model in {registry.root}; NNPM_MODELS sets another folder.")
    for entry in () if as_json else entries:
        _print(f"{entry['name']}: {', '.join(registry.versions(str(entry['name'])))}")
        for line in _lines(registry.aliases(str(entry["name"]))):
            _print(line)
        for sentence in entry.get("warnings", []):
            _print(f"  {sentence}")


def _entry(registry: Registry, name: str) -> dict[str, Any]:
    entry = {
        "name": name,
        "versions": registry.versions(name),
        "aliases": {k: asdict(held) for k, held in registry.aliases(name).items()},
    }
    outdated = list(registry.outdated(name).values())
    return entry | {"warnings": outdated} if outdated else entry


def _version(text: str) -> tuple[str, str]:
    name, slash, version = text.partition("/")
    if not slash:
        raise UsageError(f"{text} has no version; it must be NAME/VERSION, such as {text}/2")
    return name, version


def _print_aliases(name: str, aliases: dict[str, Aliases]) -> None:
    _print("\n".join([f"{name}:", *(_lines(aliases) or ["  the default answers everywhere"])]))


def _lines(aliases: dict[str, Aliases]) -> list[str]:
    return [
        f"  {language}: "
        + ", ".join(f"{alias} {version}" for alias, version in asdict(held).items() if version)
        for language, held in aliases.items()
    ]


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")
