"""What an adaptation found, as JSON and as a page."""

from functools import cache
from typing import Any

from service.api.adaptation.schemas import JobPart
from service.api.errors import NoReportError
from service.jobs.job import Job
from service.jobs.layout import JobFolder, read_json
from service.jobs.states import State

PAGE_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
"""Content-Security-Policy of the page: it loads nothing and runs nothing."""


def read(job: Job, folder: JobFolder) -> dict[str, Any]:
    """Read the report that ``nnpm adapt --json`` would have printed.

    Returns:
        The same fields; ``bundle`` is the published version, ``name/version``, or null.

    Raises:
        NoReportError: if the job has not come so far, or never did.
    """
    report = read_json(folder.report)
    if report is None or job.state in (State.FAILED, State.CANCELLED, State.INTERRUPTED):
        wait = "has ended without one" if job.ended else "comes when it has ended"
        raise NoReportError(f"The job is {job.state}; its report {wait}.")
    bundle = None if job.version is None else f"{job.name}/{job.version}"
    return {**report, "bundle": bundle}


def page(job: Job, report: dict[str, Any]) -> str:
    """Write it as a page that needs no other file."""
    return str(_template().render(job=JobPart.of(job), report=report))


@cache
def _template() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("service.api.adaptation"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html")
