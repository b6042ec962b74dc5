"""``nnpm keys``: make, list and revoke API keys."""

import argparse
import json
import sys

from .. import settings
from ..command import UsageError
from ..keys import SCOPES, Key, KeyFile


def add(parser: argparse.ArgumentParser) -> None:
    """Add the actions of the command, and their options."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    create = actions.add_parser("create", help="make a key and print it; it is not stored")
    create.add_argument("name", metavar="NAME", help="name of the key's holder")
    create.add_argument(
        "--scopes",
        nargs="*",
        choices=SCOPES,
        help="predict, adapt, admin (everything); without a value the key opens /metrics alone",
    )
    create.add_argument("--rotate", action="store_true", help="add a key to a name that has one")
    create.add_argument("--json", action="store_true", help="print one JSON document")
    listing = actions.add_parser("list", help="list all keys, including revoked ones")
    listing.add_argument("--json", action="store_true", help="print one JSON document")
    revoke = actions.add_parser("revoke", help="make a key invalid")
    revoke.add_argument("key", metavar="NAME_OR_ID")


def run(args: argparse.Namespace) -> int:
    """Show or change the key file; a running service sees a change within two seconds."""
    path = settings.load().api_keys_file
    if path is None:
        raise UsageError("NNPM_API_KEYS_FILE is not set; set it to the path of the key file")
    file = KeyFile(path)
    match args.action:
        case "create":
            _create(file, args)
        case "list":
            _list(file.read(), as_json=args.json)
        case "revoke":
            key = file.revoke(args.key)
            sys.stdout.write(f"{key.name}'s key {key.id} is revoked\n")
    return 0


def _create(file: KeyFile, args: argparse.Namespace) -> None:
    if args.scopes is None and not args.rotate:
        raise UsageError(
            "--scopes is missing: give one or more of predict, adapt and admin, or no value for a "
            "key that opens /metrics alone"
        )
    scopes = None if args.scopes is None else frozenset(args.scopes)
    text, key = file.create(args.name, scopes, rotate=args.rotate)
    if args.json:
        sys.stdout.write(json.dumps({"key": text, **_shown(key)}) + "\n")
        return
    sys.stderr.write(
        f"Key of {key.name} ({_scopes(key)}), id {key.id}. It is shown only this once:\n"
    )
    sys.stdout.write(text + "\n")


def _list(keys: list[Key], *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps({"keys": [_shown(key) for key in keys]}) + "\n")
        return
    if not keys:
        sys.stdout.write("There are no keys yet: nnpm keys create NAME --scopes predict\n")
    for key in keys:
        revoked = "" if key.revoked_at is None else f", revoked {key.revoked_at:%Y-%m-%d %H:%M}"
        sys.stdout.write(
            f"{key.id}  {key.name}: {_scopes(key)}, made {key.created_at:%Y-%m-%d %H:%M}{revoked}\n"
        )


def _shown(key: Key) -> dict[str, object]:
    return key.model_dump(mode="json", exclude={"sha256"})


def _scopes(key: Key) -> str:
    return " ".join(sorted(key.scopes)) or "metrics only"
