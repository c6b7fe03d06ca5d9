"""Shared fixtures: no test touches the user's own data, and waits of the retry policy are not waited."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _own_directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TARGET", "TOKEN", "TOKEN_FILE", "JOBS", "LIMIT_RATE", "YES"):
        monkeypatch.delenv(f"PPCLI_{name}", raising=False)
    monkeypatch.setenv("PPCLI_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("PPCLI_CONFIG_DIR", str(tmp_path / "config"))
