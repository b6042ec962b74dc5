"""The reports of jobs: as JSON, and as a page without scripts that needs no other file."""

import json
from functools import cache
from typing import Any

from ..inference.errors import printable
from ..jobs.folder import JobFolder, read_json
from ..jobs.job import Job, Kind, State
from .errors import NoReportError, NotFinishedError

PAGE_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
"""Content-Security-Policy of the page: it loads nothing and runs nothing."""


def read_report(job: Job, folder: JobFolder) -> dict[str, Any]:
    """Read a job's report: the document that ``nnpm adapt --json`` prints.

    Returns:
        The report; its ``bundle`` is the published version, ``name/version``, or null.

    Raises:
        NotFinishedError: if the job has not ended.
        NoReportError: if it ended without a report.
    """
    if not job.ended:
        raise NotFinishedError(
            f"The job is {job.state}, {job.progress:.0%} done; its report is there when it ends."
        )
    report = read_json(folder.report)
    if report is None or job.state in (State.FAILED, State.CANCELLED, State.INTERRUPTED):
        reason = f": {job.error}" if job.error else "."
        raise NoReportError(f"The job is {job.state} and has no report{reason}")
    bundle = None if job.version is None else f"{job.name}/{job.version}"
    return {**_printable(report), "bundle": bundle}


def _printable(value: Any) -> Any:
    """Make all names in a report printable; one of an earlier version may hold others."""
    match value:
        case str():
            return printable(value)
        case dict():
            return {key: _printable(item) for key, item in value.items()}
        case list():
            return [_printable(item) for item in value]
        case _:
            return value


def report_page(job: Job, report: dict[str, Any], address: str, *, keyed: bool) -> str:
    """Render the report as a page that needs no other file.

    Args:
        job: that has ended.
        report: of :func:`read_report`.
        address: of this service, as the caller reaches it.
        keyed: requests need a key.
    """
    emotions = report.get("emotions") or {"before": {}, "after": {}}
    before, after = emotions["before"], emotions["after"]
    template = "evaluation.html" if job.kind is Kind.EVALUATE else "adaptation.html"
    page = (
        _templates()
        .get_template(template)
        .render(
            title=f"{job.kind.noun} of {job.name}: {report.get('verdict') or job.state}",
            job=job,
            report=report,
            emotions=[
                (name, before.get(name, 0), after.get(name, 0)) for name in {**before, **after}
            ],
            steps=_next_steps(
                job, address, ' -H "Authorization: Bearer $NNPM_KEY"' if keyed else ""
            ),
        )
    )
    return str(page)


def _next_steps(job: Job, address: str, key: str) -> list[tuple[str, str]]:
    """What to do next: sentences, each with commands that can be pasted."""
    name, version, language = job.name, job.version, job.language
    if version is None:
        return [
            (
                "Label the recordings that are worth it, and adapt again with them:",
                f"nnpm label FOLDER --bundle models/{name}/{job.base}\n"
                f"curl{key} -F archive=@clips.zip -F language={language} "
                f"-F labels=@FOLDER/metadata.csv {address}/adapt",
            )
        ]
    models, choice = f"{address}/models/{name}", {"version": version, "language": language}
    return [
        (
            "Compare the versions on one recording:",
            f"curl{key} -F file=@clip.wav '{address}/predict?model={name}/{job.base}'\n"
            f"curl{key} -F file=@clip.wav '{address}/predict?model={name}/{version}'",
        ),
        (
            "Measure the new version on labelled recordings (metadata.csv with path and emotion):",
            f"curl{key} -F archive=@labelled.zip {models}/{version}/evaluate",
        ),
        (
            f"Let it answer for {language}, and undo that if it is not better:",
            f"curl{key} -X POST {models}/promote --json '{json.dumps(choice)}'\n"
            f"curl{key} -X POST {models}/rollback --json '{json.dumps({'language': language})}'",
        ),
    ]


@cache
def _templates() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("nnpm.service.api"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = lambda share: f"{100 * share:.0f} %"
    return environment
