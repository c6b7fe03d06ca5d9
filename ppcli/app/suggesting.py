"""The ids of jobs, for a shell that completes a command line: at once, so from summaries alone, which may be old."""

from __future__ import annotations

from collections.abc import Collection

from ppcli import config
from ppcli.jobs import JobStore


def jobs(prefix: str, *, but: Collection[str] = (), finished: bool = False) -> list[tuple[str, str]]:
    """Ids that begin with `prefix`, newest first, and what those jobs are: `but` not these, and `finished` ones only
    where that is said. What cannot be read is left out."""
    store = JobStore(config.dirs().data)
    outlines = (store.outline(job) for job in store.ids() if job.startswith(prefix) and job not in but)
    found = [seen for seen in outlines if seen is not None and (finished or not seen.state.finished)]
    found.sort(key=lambda seen: seen.created, reverse=True)
    return [
        (seen.job, f"{seen.state}: {seen.sources[0] if seen.sources else seen.files} -> {seen.target}")
        for seen in found
    ]
