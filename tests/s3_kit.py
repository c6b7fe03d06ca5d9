"""A real S3 server for tests: moto's, as a process of its own on a free loopback port, or whatever
PPCLI_TEST_S3_ENDPOINT names, with the usual AWS variables.

with running_s3() as s3:
    s3.url("bucket", adopt_after="0")     # a target
    s3.bucket()                           # a new bucket
    s3.api("bucket")                      # our own calls, to look at what is there
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

from guarded import GUARD

from ppcli.targets.s3_api import Api
from ppcli.targets.s3_credentials import Identity
from ppcli.targets.s3_url import parse
from ppcli.targets.s3_wire import Wire
from ppcli.transport import Transport

STARTING = 60.0
KEYS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
}
_BUCKETS = itertools.count(1)
_SERVER = """
import logging, sys
from moto.s3.models import S3Backend
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

def copy_part(self, dest_bucket_name, multipart_id, part_id, src_bucket_name, src_key_name, src_version_id,
              start_byte, end_byte):
    # its own reads the whole object for each part
    there = self.get_object(src_bucket_name, src_key_name, version_id=src_version_id)
    with there.lock:
        there._value_buffer.seek(start_byte or 0)
        data = there._value_buffer.read(-1 if end_byte is None else end_byte + 1 - start_byte)
    return self.get_bucket(dest_bucket_name).multiparts[multipart_id].set_part(part_id, data)

S3Backend.upload_part_copy = copy_part
logging.getLogger("werkzeug").disabled = True
WSGIRequestHandler.protocol_version = "HTTP/1.1"
app = DomainDispatcherApplication(create_backend_app)
make_server("127.0.0.1", int(sys.argv[1]), app, threaded=True).serve_forever()
"""


@dataclass(frozen=True)
class S3:
    endpoint: str
    port: int

    def url(self, bucket: str, prefix: str = "", /, endpoint: str | None = None, **options: str) -> str:
        below = f"/{prefix}" if prefix else ""
        return f"s3://{bucket}{below}?{urlencode({'endpoint': endpoint or self.endpoint, **options}, safe=':/')}"

    def api(self, bucket: str) -> Api:
        return Api(Wire(parse(self.url(bucket)), Identity(None), Transport))

    def bucket(self) -> str:
        name = f"ppcli-{next(_BUCKETS)}-{uuid.uuid4().hex[:8]}"
        Wire(parse(self.url(name)), Identity(None), Transport).send("PUT", None, {})
        return name


def environment() -> Mapping[str, str]:
    """What a client needs, besides what the caller has."""
    return {} if os.environ.get("PPCLI_TEST_S3_ENDPOINT") else KEYS


@contextlib.contextmanager
def running_s3(root: Path) -> Iterator[S3]:
    given = os.environ.get("PPCLI_TEST_S3_ENDPOINT")
    if given:
        yield S3(given, 0)
        return
    port = free_port()
    errors = (root / "moto-stderr").open("wb")
    env = {**os.environ, **KEYS, "S3_UPLOAD_PART_MIN_SIZE": "1", "PYTHONWARNINGS": "ignore", "HOME": str(root)}
    process = subprocess.Popen(
        [sys.executable, GUARD, sys.executable, "-c", _SERVER, str(port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=errors,
        env=env,
    )
    try:
        _until_it_listens(port, process)
        yield S3(f"http://127.0.0.1:{port}", port)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(20)
        errors.close()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _until_it_listens(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + STARTING
    while time.monotonic() < deadline:
        assert process.poll() is None, "it did not start"
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        with contextlib.closing(connection), contextlib.suppress(OSError):
            connection.request("GET", "/")
            connection.getresponse().read()
            return
        time.sleep(0.1)
    raise AssertionError("it did not start in time")
