"""``nnpm keys``: make, list and revoke the keys that a service asks for."""

import argparse
import json
import sys

from .. import settings
from ..keys import Key, KeyFile
from . import UsageError


def run(args: argparse.Namespace) -> int:
    """Show or change the file of keys; a running service sees a change within two seconds."""
    path = settings.load().api_keys_file
    if path is None:
        raise UsageError("no file of keys is named; NNPM_API_KEYS_FILE names it")
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
            "--scopes is missing: predict, adapt, admin; without a name it makes a key that opens "
            "/metrics alone"
        )
    scopes = None if args.scopes is None else frozenset(args.scopes)
    text, key = file.create(args.name, scopes, rotate=args.rotate)
    if args.json:
        sys.stdout.write(json.dumps({"key": text, **_shown(key)}) + "\n")
        return
    sys.stderr.write(
        f"The key of {key.name} ({_scopes(key)}), id {key.id}. It is shown this once:\n"
    )
    sys.stdout.write(text + "\n")


def _list(keys: list[Key], *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps({"keys": [_shown(key) for key in keys]}) + "\n")
        return
    if not keys:
        sys.stdout.write("There are no keys yet; nnpm keys create NAME --scopes predict\n")
    for key in keys:
        revoked = "" if key.revoked_at is None else f", revoked {key.revoked_at:%Y-%m-%d %H:%M}"
        sys.stdout.write(
            f"{key.id}  {key.name}: {_scopes(key)}, made {key.created_at:%Y-%m-%d %H:%M}{revoked}\n"
        )


def _shown(key: Key) -> dict[str, object]:
    return key.model_dump(mode="json", exclude={"sha256"})


def _scopes(key: Key) -> str:
    return " ".join(sorted(key.scopes)) or "metrics only"
