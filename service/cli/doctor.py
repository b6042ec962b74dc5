"""``nnpm doctor``: what is installed, which model answers, what is off and how to turn it on."""

import argparse
import importlib.util
import json
import os
import platform
import sys
from importlib import metadata
from typing import Any

import onnxruntime

from ... import __version__
from .. import environment, settings
from ..inference.errors import NnpmError
from ..registry.opening import loader, main_name, open_to_read
from ..registry.serving import LoadedModels, Serving
from ..settings import Settings
from ..system import available_cores

EXTRAS = {
    "adapt": (("autograd", "onnx"), "adaptation: nnpm adapt, POST /adapt, nnpm calibrate"),
    "media": (("av",), "MP4, M4A, WebM, AMR, WMA and the audio of videos"),
    "tables": (("openpyxl", "pandas", "pyarrow"), "Parquet, XLSX and data frames"),
    "client": (("httpx2",), "nnpm.Client and nnpm.AsyncClient"),
    "hub": (("huggingface_hub",), "nnpm models pull and push"),
    "device": (("onnx", "onnxruntime-gpu"), "recognition on a GPU, with NNPM_DEVICE=cuda"),
    "train": (("torch",), "nnpm train, export and benchmark"),
    "scale": (("ray",), "archives and replicas on a Ray cluster"),
    "remote": (("fsspec",), "recordings and models at URLs such as s3://bucket/folder"),
    "postgres": (("psycopg",), "a jobs database that several machines share"),
    "otel": (("opentelemetry.sdk",), "traces"),
}
"""Of each extra: modules that it installs, or a package whose module another has, too; and what
they are for."""

_PACKAGES = ("numpy", "soundfile", "fastapi", "pydantic")


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(args: argparse.Namespace) -> int:
    """Print the report; it changes nothing."""
    own = settings.load()
    report = {
        "version": __version__,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "cores": available_cores(),
        # of two packages, whichever is installed
        "packages": {"onnxruntime": onnxruntime.__version__}
        | {name: metadata.version(name) for name in _PACKAGES},
        "model": _model(own),
        "extras": {name: _extra(name, *about) for name, about in EXTRAS.items()},
        "settings": _settings(),
        "off": _off(own),
    }
    sys.stdout.write((json.dumps(report) if args.json else "\n".join(_lines(report))) + "\n")
    return 0


def _model(own: Settings) -> dict[str, Any]:
    """The default model, loaded and checked by its probe; or why it cannot answer."""
    folder = str(own.models)
    try:
        registry = open_to_read(own)
        route = Serving(registry, LoadedModels(loader(own), 1)).choose(main_name(registry))
        outdated = [text for name in registry.names() for text in registry.outdated(name).values()]
    except NnpmError as error:
        return {"folder": folder, "ready": False, "device": own.device, "error": str(error)}
    card = route.recognizer.bundle.card
    return {
        "folder": folder,
        "ready": True,
        "device": own.device,
        "provider": route.recognizer.model.provider,
        "name": route.model.name,
        "version": route.model.version,
        "language": route.language,
        "emotions": list(card.labels),
        "licence": card.licence,
        "calibrated": card.calibrated,
        "outdated": outdated,
    }


def _extra(name: str, modules: tuple[str, ...], gives: str) -> dict[str, Any]:
    missing = [module for module in modules if not _installed(module)]
    extra: dict[str, Any] = {"installed": not missing, "gives": gives}
    if missing:
        extra |= {"missing": missing, "install": f"pip install 'nnpm[{name}]'"}
    return extra


def _installed(module: str) -> bool:
    try:
        if "-" in module:
            return bool(metadata.version(module))
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # the package that it is in; PackageNotFoundError is one, too
        return False


def _settings() -> dict[str, Any]:
    """Which settings are given, and where; not their values, which may be secret."""
    known = {f"NNPM_{name.upper()}" for name in Settings.model_fields}
    given = {name for name, value in os.environ.items() if name.startswith("NNPM_") and value}
    in_file = environment.names_in_file()
    return {
        "environment": sorted(given & known),
        "file": str(settings.ENV_FILE) if settings.ENV_FILE.is_file() else None,
        "from_file": sorted((in_file & known) - given),
        "unknown": environment.unknown_names(),
    }


def _off(own: Settings) -> list[dict[str, str]]:
    """What a service with these settings does not do, and how to change that."""
    found = {
        "API keys": (
            own.api_keys_file is None,
            "nnpm keys create NAME --scopes predict, with NNPM_API_KEYS_FILE=keys.json",
        ),
        "rate limit": (own.rate_limit is None, "NNPM_RATE_LIMIT=100/minute"),
        "adaptation from folders of the server": (
            not own.adapt_roots,
            "NNPM_ADAPT_ROOTS=/srv/recordings",
        ),
        "adaptation in the service's own workers": (
            own.adapt_workers == 0,
            "NNPM_ADAPT_WORKERS=1, or run nnpm worker",
        ),
        "traces": (
            not any(os.environ.get(name) for name in _TRACE_VARIABLES),
            "the extra 'otel', and OTEL_EXPORTER_OTLP_ENDPOINT",
        ),
    }
    return [{"what": what, "how": how} for what, (is_off, how) in found.items() if is_off]


_TRACE_VARIABLES = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


def _lines(report: dict[str, Any]) -> list[str]:
    """The report for people."""
    model, given = report["model"], report["settings"]
    lines = [
        f"nnpm {report['version']}, Python {report['python']}, {report['platform']}, "
        f"{report['cores']} cores",
        ", ".join(f"{name} {version}" for name, version in report["packages"].items()),
        "",
    ]
    if model["ready"]:
        lines += [
            f"model: {model['name']}/{model['version']} ({model['language']}) in "
            f"{model['folder']}; it loads, and passes its probe",
            f"  runs on: {model['provider']} (NNPM_DEVICE={model['device']})",
            f"  emotions: {', '.join(model['emotions'])}",
            f"  licence: {model['licence']}",
            *(f"  {sentence}" for sentence in model["outdated"]),
        ]
    else:
        lines.append(f"model: none answers: {model['error']}")
    lines += ["", "extras:"]
    for name, extra in report["extras"].items():
        how = "" if extra["installed"] else f": {extra['install']}"
        state = "installed" if extra["installed"] else "not installed"
        lines.append(f"  {name:<9} {state:<14} {extra['gives']}{how}")
    lines += ["", "off:", *(f"  {one['what']}: {one['how']}" for one in report["off"])]
    lines += ["", f"settings: {', '.join(given['environment']) or 'none'} in the environment"]
    if given["file"]:
        lines.append(f"  {', '.join(given['from_file']) or 'none'} in {given['file']}")
    return [*lines, *(f"  {sentence}" for sentence in given["unknown"])]
