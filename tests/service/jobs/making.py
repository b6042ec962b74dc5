"""Jobs for tests."""

from nnpm.service.jobs.job import Job


def job(**changes: object) -> Job:
    fields: dict[str, object] = {
        "owner": "ann", "name": "default", "language": "ur", "method": "nnpm", "source": "files",
    }  # fmt: skip
    return Job(**(fields | changes))  # type: ignore[arg-type]
