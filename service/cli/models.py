"""``nnpm models``: show and change the models folder, and which version answers.

``pull`` and ``push`` exchange bundles with a model hub that speaks the interface of Hugging Face.
"""

import argparse
import importlib
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from .. import settings
from ..command import UsageError
from ..inference import bundle
from ..inference.card import DEFAULT_NAME
from ..inference.errors import BundleError, printable
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
    pull = actions.add_parser("pull", help="publish a bundle of a model hub as the next version")
    pull.add_argument("repository", metavar="OWNER/NAME", help="on the hub")
    pull.add_argument("--name", help="of the model here [NAME]")
    pull.add_argument("--revision", metavar="REV", help="branch, tag or commit [the main branch]")
    push = actions.add_parser("push", help="upload a version and its card to a model hub")
    push.add_argument("model", metavar="NAME/VERSION")
    push.add_argument("repository", metavar="OWNER/NAME", help="on the hub; made if there is none")
    push.add_argument("--private", action="store_true", help="make a repository that only you see")


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
        case "pull":
            _pull(registry, args.repository, args.name, args.revision)
        case "push":
            _push(registry, args.model, args.repository, private=args.private)
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


_PATTERNS = sorted({bundle.CARD, bundle.SEAL}.union(*bundle.FILES.values()))


def _pull(registry: Registry, repository: str, name: str | None, revision: str | None) -> None:
    """Fetch a bundle, check its digests and its probe, and publish it."""
    with TemporaryDirectory() as cache:
        with _hub(repository) as hub:
            fetched = hub.snapshot_download(
                repository,
                revision=revision,
                cache_dir=cache,
                allow_patterns=_PATTERNS,
                endpoint=_endpoint(),
            )
        folder = Path(fetched)
        if not (folder / bundle.CARD).is_file():
            raise UsageError(f"{repository} holds no bundle: it has no {bundle.CARD}")
        try:
            load_recognizer(folder)  # fails unless digests and probe are right
        except BundleError as error:
            told = str(error).replace(f"{folder}{os.sep}", "").replace(str(folder), repository)
            raise UsageError(f"{repository} holds no sound bundle: {told}") from None
        # a snapshot's folder has the name of its commit: pulled twice, it is one version
        key = f"{repository}@{folder.name}"
        found = registry.publish(folder, name or repository.split("/")[1], key=key)
    _print(f"{found.name}/{found.version} is published; nnpm models promote lets it answer")


def _push(registry: Registry, model: str, repository: str, *, private: bool) -> None:
    """Check a version's digests and its probe, and upload its files."""
    found = registry.resolve(*_version(model))
    load_recognizer(found.path)
    with _hub(repository) as hub:
        if hub.get_token() is None:
            raise UsageError("push needs a token of the model hub: set HF_TOKEN")
        api = hub.HfApi(endpoint=_endpoint())
        address = api.create_repo(repository, private=private or None, exist_ok=True)
        api.upload_folder(
            repo_id=repository,
            folder_path=found.path,
            allow_patterns=_PATTERNS,
            commit_message=f"{found.name}/{found.version}",
        )
    _print(f"{model} is at {address}")


def _endpoint() -> str | None:
    return os.environ.get("HF_ENDPOINT") or None


@contextmanager
def _hub(repository: str) -> Iterator[Any]:
    """The hub's client, whose dozen types of errors become one line each."""
    plain = f"{repository} is no repository of a model hub; it must be OWNER/NAME"
    if repository.count("/") != 1:
        raise UsageError(plain)
    try:
        # takes a second; and its types do not export all that it documents
        hub, constants, errors, utils = (
            importlib.import_module(f"huggingface_hub{part}")
            for part in ("", ".constants", ".errors", ".utils")
        )
    except ModuleNotFoundError:
        raise UsageError(
            "pull and push need huggingface_hub, which is not installed; install the extra hub: "
            "pip install 'nnpm[hub]'"
        ) from None
    utils.disable_progress_bars()
    utils.logging.set_verbosity_error()
    address = f"the model hub at {_endpoint() or constants.ENDPOINT}"
    try:
        yield hub
    except errors.RevisionNotFoundError:
        raise UsageError(f"{repository} has no such revision") from None
    except errors.RepositoryNotFoundError:
        raise UsageError(
            f"{address} shows no repository {repository}; if it is private or gated, set HF_TOKEN "
            "to a token that may read it"
        ) from None
    except errors.HFValidationError:
        raise UsageError(plain) from None
    except (errors.HTTPError, errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        answer = getattr(error if error.__cause__ is None else error.__cause__, "response", None)
        if answer is None:
            raise UsageError(f"{address} cannot be reached") from None
        more = "; the token in HF_TOKEN may not do this" if answer.status_code in (401, 403) else ""
        raise UsageError(f"{address} refuses with status {answer.status_code}{more}") from None
    except ValueError as error:  # of the front matter of a card
        raise UsageError(f"{address} refuses: {printable(' '.join(str(error).split()))}") from None


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
