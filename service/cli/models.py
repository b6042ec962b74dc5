"""``nnpm models list`` and ``nnpm models show``."""

import argparse
import json
import sys

from service import settings
from service.inference import bundle
from service.registry.folder import ModelFolder


def run(args: argparse.Namespace) -> int:
    """Print what the models folder holds."""
    folder = ModelFolder(settings.load().models)
    if args.action == "show":
        card = bundle.load(folder.parse(args.model).path).card
        sys.stdout.write(card.model_dump_json(indent=2) + "\n")
        return 0
    entries = [
        {"name": name, "versions": folder.versions(name), "aliases": {}} for name in folder.names()
    ]
    if args.json:
        sys.stdout.write(json.dumps({"models": entries}) + "\n")
    elif not entries:
        sys.stdout.write(f"There is no model in {folder.root}; NNPM_MODELS names the folder.\n")
    else:
        for entry in entries:
            sys.stdout.write(f"{entry['name']}: {', '.join(entry['versions'])}\n")
    return 0
