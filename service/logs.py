"""Logging: one record a line, as JSON for programs or text for people."""

import logging
import logging.config
import sys
import threading
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Literal

from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonEncoder, JsonFormatter

LogFormat = Literal["json", "text"]
LogLevel = Literal["debug", "info", "warning", "error"]

_about: ContextVar[dict[str, str] | None] = ContextVar("nnpm_log", default=None)


def about(**facts: str) -> None:
    """Add these fields to every further record of the same request, job or thread."""
    _about.set({**(_about.get() or {}), **facts})


def default_format() -> LogFormat:
    """Text on a terminal, JSON otherwise."""
    return "text" if sys.stderr.isatty() else "json"


def configure(style: LogFormat, level: LogLevel) -> None:
    """Send all records, warnings and uncaught errors to standard error.

    Libraries log from WARNING on: their debug records may hold what clients have sent.

    Args:
        style: format of each line.
        level: lowest level of our own records, and of the server's.
    """
    own = {"level": level.upper()}
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "filters": {"about": {"()": _About}},
            "formatters": {
                "json": {
                    "()": _Lines,
                    "fmt": ["levelname", "name", "message"],
                    "timestamp": "time",
                    "rename_fields": {
                        "levelname": "level",
                        "name": "logger",
                        "exc_info": "stack",
                    },
                    "reserved_attrs": [*RESERVED_ATTRS, "taskName", "color_message"],
                },
                "text": {"format": "%(levelname)-8s %(message)s"},
            },
            "handlers": {
                "stderr": {
                    "class": "logging.StreamHandler",
                    "formatter": style,
                    "filters": ["about"],
                }
            },
            "loggers": {
                "nnpm": own,
                "uvicorn": own,
                "python_multipart": {"level": "ERROR"},  # bad forms are reported to the client
            },
            "root": {"level": "WARNING", "handlers": ["stderr"]},
        }
    )
    logging.captureWarnings(True)
    threading.excepthook = _on_thread_error
    sys.excepthook = _on_error


_ENCODER = JsonEncoder()


class _Lines(JsonFormatter):
    """A record as a line of JSON; one without a stack, such as each request's, on a short way."""

    def format(self, record: logging.LogRecord) -> str:
        if record.exc_info or record.exc_text or record.stack_info:
            return super().format(record)
        facts: dict[str, Any] = {"level": record.levelname, "logger": record.name}
        facts["message"] = record.getMessage()
        for key, value in record.__dict__.items():
            if key not in self._skip_fields and not key.startswith("_"):
                facts[key] = value
        facts["time"] = datetime.fromtimestamp(record.created, UTC).isoformat()
        return _ENCODER.encode(facts)


class _About(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        record.__dict__.update(_about.get() or {})
        return True


def _on_thread_error(args: threading.ExceptHookArgs) -> None:
    if args.exc_type is not SystemExit:
        error: Any = (args.exc_type, args.exc_value, args.exc_traceback)
        logging.getLogger("nnpm").error("a thread ended with an error", exc_info=error)


def _on_error(*error: Any) -> None:
    logging.getLogger("nnpm").critical("the process ends with an error", exc_info=error)
