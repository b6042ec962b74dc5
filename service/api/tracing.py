"""Traces for OpenTelemetry, if the extra ``otel`` is installed and OTEL_... variables ask for them.

FastAPI makes the span of each request, continues the trace of its caller (W3C traceparent), and
exports spans. This module adds the stages of an answer, and removes what a client may have written
into a path or query.
"""

import importlib
import logging
import os
import time
from typing import TYPE_CHECKING

from fastapi.telemetry import TelemetryConfig
from opentelemetry import trace
from opentelemetry.context import Context
from starlette.types import Scope

from ... import __version__
from ..predict.schemas import PredictAnswer

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import Span, SpanProcessor, TracerProvider

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
PROBES = ("/health/", "/metrics")
"""Routes that machines ask every few seconds."""
_MAY_HOLD_NAMES = ("url.path", "url.query")

log = logging.getLogger("nnpm")


class Tracing:
    """Spans of one app.

    Args:
        provider: makes the spans; None turns tracing off.
        export: send the spans to the endpoint that OTEL_... names.
    """

    def __init__(self, provider: "TracerProvider | None", *, export: bool = False) -> None:
        self._tracer = None
        if provider is not None:
            provider.add_span_processor(_redacting_processor())
            self._tracer = provider.get_tracer("nnpm", __version__)
        self.telemetry: TelemetryConfig = {
            "tracer_provider": provider,
            "tracing": provider is not None,
            "auto_configure": export and provider is not None,
            "exclude": _is_a_probe,
            # /metrics has the figures, and the log has the errors.
            "metrics": False,
            "logs": False,
            "operation_spans": False,
        }
        """For FastAPI."""

    @classmethod
    def from_environment(cls) -> "Tracing":
        """Trace if OTEL_EXPORTER_OTLP_ENDPOINT is set; log a warning if the extra is missing."""
        if not any(os.environ.get(name) for name in _ENDPOINTS):
            return cls(None)
        try:
            importlib.import_module("opentelemetry.exporter.otlp.proto.http")  # for FastAPI
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
        except ImportError:
            log.warning(
                "OTEL_... asks for traces, which need the extra otel: pip install '.[otel]'"
            )
            return cls(None)
        named = {"service.name": os.environ.get("OTEL_SERVICE_NAME") or "nnpm"}
        resource = Resource.create({"service.version": __version__, **named})
        return cls(TracerProvider(resource=resource), export=True)

    @property
    def is_on(self) -> bool:
        """Whether requests are traced."""
        return self._tracer is not None

    def trace_id(self) -> str | None:
        """Return the id of the current trace, in hexadecimal."""
        if self._tracer is None:
            return None
        context = trace.get_current_span().get_span_context()
        return trace.format_trace_id(context.trace_id) if context.is_valid else None

    def answered(self, answer: PredictAnswer) -> None:
        """Add an answer's stages to the span of its request, as they were timed.

        For a long recording, decoding and scoring take turns; the spans then show how long each of
        them took in all, but not when.
        """
        if self._tracer is None:
            return
        about = {"nnpm.model": answer.model.name, "nnpm.version": answer.model.version}
        timing = answer.timing_ms
        start_ns = time.time_ns() - int(1e6 * timing.total)
        for name in ("queue", "decode", "inference"):
            end_ns = start_ns + int(1e6 * getattr(timing, name))
            span = self._tracer.start_span(name, start_time=start_ns, attributes=about)
            span.end(end_ns)
            start_ns = end_ns
        trace.get_current_span().set_attribute("nnpm.audio_s", answer.audio.duration_s)


def _redacting_processor() -> "SpanProcessor":
    """Make a processor that redacts attributes as a span starts, as OpenTelemetry's conventions do.

    Its base class is of the extra, so it is made where the extra is there.
    """
    from opentelemetry.sdk.trace import SpanProcessor

    class RedactingSpanProcessor(SpanProcessor):
        def on_start(self, span: "Span", parent_context: Context | None = None) -> None:  # noqa: ARG002
            for name in _MAY_HOLD_NAMES:
                if name in (span.attributes or {}):
                    span.set_attribute(name, "REDACTED")

    return RedactingSpanProcessor()


def _is_a_probe(scope: Scope) -> bool:
    path: str = scope["path"]
    return path.startswith(PROBES)
