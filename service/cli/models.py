"""``nnpm models``: what the models folder holds, and which version answers."""

import argparse
import json
import sys
from dataclasses import asdict

from .. import settings
from ..inference import bundle
from ..registry.opening import open_registry
from ..registry.registry import Aliases, Registry
from ..registry.serving import load_recognizer
from . import UsageError


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
            _tell(args.model, registry.rollback(args.model, args.language))
        case "shadow" if args.off:
            name = args.model.partition("/")[0]
            _tell(name, registry.shadow(name, None, args.language))
        case action:
            name, version = _version(args.model)
            if action == "delete":
                registry.delete(name, version)
                _print(f"{name}/{version} is deleted")
                return 0
            load_recognizer(registry.resolve(name, version).path)  # it must pass its probe
            change = registry.promote if action == "promote" else registry.shadow
            _tell(name, change(name, version, args.language))
    return 0


def _list(registry: Registry, *, as_json: bool) -> None:
    entries = [
        {
            "name": name,
            "versions": registry.versions(name),
            "aliases": {k: asdict(held) for k, held in registry.aliases(name).items()},
        }
        for name in registry.names()
    ]
    if as_json:
        _print(json.dumps({"models": entries}))
    elif not entries:
        _print(f"There is no model in {registry.root}; NNPM_MODELS names the folder.")
    for entry in () if as_json else entries:
        _print(f"{entry['name']}: {', '.join(registry.versions(str(entry['name'])))}")
        for line in _lines(registry.aliases(str(entry["name"]))):
            _print(line)


def _version(text: str) -> tuple[str, str]:
    name, slash, version = text.partition("/")
    if not slash:
        raise UsageError(f"{text} names no version; NAME/VERSION is wanted, such as {text}/2")
    return name, version


def _tell(name: str, aliases: dict[str, Aliases]) -> None:
    _print("\n".join([f"{name}:", *(_lines(aliases) or ["  the default answers everywhere"])]))


def _lines(aliases: dict[str, Aliases]) -> list[str]:
    return [
        f"  {language}: "
        + ", ".join(f"{alias} {version}" for alias, version in asdict(held).items() if version)
        for language, held in aliases.items()
    ]


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")
