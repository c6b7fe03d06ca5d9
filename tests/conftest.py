"""Shared fixtures. No test touches the user's own data."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_kit import Cli, fast_directory, make_cli


@pytest.fixture(autouse=True)
def _own_directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TARGET", "TOKEN", "TOKEN_FILE", "JOBS", "LIMIT_RATE", "YES"):
        monkeypatch.delenv(f"PPCLI_{name}", raising=False)
    monkeypatch.setenv("PPCLI_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("PPCLI_CONFIG_DIR", str(tmp_path / "config"))


@pytest.fixture
def root() -> Iterator[Path]:
    with fast_directory() as path:
        yield path


@pytest.fixture(params=["pads", "file"])
def cli(request: pytest.FixtureRequest, root: Path) -> Cli:
    return make_cli(root, request.param)


@pytest.fixture
def pads(root: Path) -> Cli:
    return make_cli(root, "pads")
