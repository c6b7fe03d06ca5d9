"""Who we are on AWS, from botocore: environment, profiles, SSO, processes, containers and instances, with refresh.

Loading botocore takes longer than sending a small file, so it is left alone where it has nothing to add: keys in the
environment come first for it as well, and without a config file there are no variables in one."""

from __future__ import annotations

import importlib.util
import os
import threading
from pathlib import Path
from typing import Any

from ppcli.errors import Credentials, Transient, not_installed
from ppcli.targets.s3_signing import Key

_HINT = "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run 'aws configure' or 'aws sso login'."
_REGION = "us-east-1"


class Identity:
    """Of one profile. Opens nothing until it is asked; any thread may ask."""

    def __init__(self, profile: str | None) -> None:
        self._profile = profile
        self._lock = threading.Lock()
        self._session: Any = None
        self._credentials: Any = None
        self._given: Key | None = None

    @property
    def region(self) -> str:
        """What the environment or the profile says, else us-east-1, from where AWS tells a bucket's own."""
        given = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
        return given or self._variable("region") or _REGION

    @property
    def endpoint(self) -> str | None:
        """AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, or the profile's `endpoint_url`."""
        for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
            if os.environ.get(name):
                return os.environ[name]
        return self._variable("endpoint_url")

    def key(self) -> Key:
        """The present credentials; botocore renews those that are about to end. Raises `Credentials`."""
        if (given := self._given) is not None:
            return given
        if self._profile is None and (found := _from_environment()) is not None:
            self._given = found
            return found
        self.check_installed()
        from botocore.exceptions import BotoCoreError

        with self._lock:
            if self._credentials is None:
                try:
                    self._credentials = self._opened().get_credentials()
                except BotoCoreError as error:
                    raise _refused(error) from error
            if self._credentials is None:
                raise Credentials("No AWS credentials were found.", hint=_HINT, reason="missing")
            try:
                frozen = self._credentials.get_frozen_credentials()
            except BotoCoreError as error:
                raise _refused(error) from error
            except OSError as error:
                raise Transient(f"the credentials cannot be renewed: {error}") from error
        if not frozen.access_key or not frozen.secret_key:
            raise Credentials("The AWS credentials are not complete.", hint=_HINT, reason="missing")
        return Key(frozen.access_key, frozen.secret_key, frozen.token)

    def renew(self, used: Key) -> bool:
        """`used` was refused as expired: read everything again. False where that gives the same."""
        with self._lock:
            self._session = self._credentials = self._given = None
        return self.key() != used

    def _variable(self, name: str) -> str | None:
        config = Path(os.environ.get("AWS_CONFIG_FILE") or "~/.aws/config")
        if self._profile is None and not _is_file(config):
            return None
        with self._lock:
            session = self._opened()
            try:
                value = session.get_config_variable(name)
            except Exception:  # botocore raises whatever its parsers do; without a profile there is no variable
                value = None
        return value if isinstance(value, str) and value else None

    def _opened(self) -> Any:
        if self._session is None:
            self.check_installed()
            from botocore.session import Session

            self._session = Session(profile=self._profile)
        return self._session

    def check_installed(self) -> None:
        """Raises `Usage` where the extra is missing."""
        for package in ("botocore", "awscrt"):
            if importlib.util.find_spec(package) is None:
                raise not_installed("s3", "S3")


def _from_environment() -> Key | None:
    access, secret = os.environ.get("AWS_ACCESS_KEY_ID"), os.environ.get("AWS_SECRET_ACCESS_KEY")
    token = os.environ.get("AWS_SESSION_TOKEN") or os.environ.get("AWS_SECURITY_TOKEN")
    return Key(access, secret, token) if access and secret else None


def _is_file(path: Path) -> bool:
    try:
        return path.expanduser().is_file()
    except (RuntimeError, OSError):
        return False


def _refused(error: Exception) -> Credentials:
    said = " ".join(str(error).split()).rstrip(".")
    return Credentials(f"The AWS credentials cannot be used: {said}.", hint=_HINT, reason="refused")
