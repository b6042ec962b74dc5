"""No span tells what a client may have written into an address. Needs the extra ``otel``."""

from collections.abc import Iterable

from opentelemetry.context import Context
from opentelemetry.sdk.trace import Span, SpanProcessor


class Discreet(SpanProcessor):
    """Replaces attributes of spans as they begin.

    Args:
        names: of the attributes.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._names = tuple(names)

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:  # noqa: ARG002
        """Write REDACTED over them, as OpenTelemetry's conventions do."""
        for name in self._names:
            if name in (span.attributes or {}):
                span.set_attribute(name, "REDACTED")
