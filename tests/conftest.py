"""Shared fixtures. No test touches the user's own data."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cli_kit import Cli, fast_directory, make_cli

if TYPE_CHECKING:
    from putplace_kit import PutPlace
    from s3_kit import S3


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


@pytest.fixture(scope="session")
def putplace() -> Iterator[PutPlace]:
    """The real PutPlace server, one for all tests."""
    from putplace_kit import running_putplace

    with fast_directory() as path, running_putplace(path) as server:
        yield server


@pytest.fixture(scope="session")
def s3() -> Iterator[S3]:
    """A real S3 server, one for all tests."""
    from s3_kit import running_s3

    with fast_directory() as path, running_s3(path) as server:
        yield server


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PEM file with a key and a certificate for 127.0.0.1 that nobody else signed."""
    if not shutil.which("openssl"):
        pytest.skip("needs openssl")
    where = tmp_path_factory.mktemp("tls")
    key, cert = where / "key.pem", where / "cert.pem"
    made = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    made += ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)]
    subprocess.run(["openssl", *made], check=True, capture_output=True)
    both = where / "both.pem"
    both.write_bytes(cert.read_bytes() + key.read_bytes())
    return both


@pytest.fixture
def secure(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


@pytest.fixture(scope="session")
def seed(pytestconfig: pytest.Config) -> int:
    number: int = pytestconfig.getoption("--seed")
    return number


def pytest_report_header(config: pytest.Config) -> str:
    return f"seed of the sweeps: {config.getoption('--seed')}"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--sweep", action="store_true", help="run the long sweeps as well")
    parser.addoption("--every-point", action="store_true", help="with --sweep: all points, where it takes a sample")
    parser.addoption("--seed", type=int, default=1, help="where the sweeps take their random numbers from")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The long sweeps have short versions, which always run."""
    if not config.getoption("--sweep"):
        long = [item for item in items if item.get_closest_marker("sweep")]
        items[:] = [item for item in items if not item.get_closest_marker("sweep")]
        config.hook.pytest_deselected(items=long)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What the sweeps of this run came to."""
    from sweeps.kit.slices import table

    reports = [one for kind in ("passed", "failed") for one in terminalreporter.stats.get(kind, [])]
    said = [str(value) for one in reports for key, value in one.user_properties if key == "figures"]
    if lines := table(reports) + said:
        terminalreporter.section("sweeps")
        for line in lines:
            terminalreporter.write_line(line)
