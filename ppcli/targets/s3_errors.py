"""What S3 servers refuse, and what that means to us: by <Code> where there is one, else by status. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ppcli.errors import Credentials, Damaged, PpcliError, Rejected, SessionLost, StepFailure, Transient
from ppcli.targets import s3_xml
from ppcli.transport import Reply
from ppcli.transport.refusals import own_words, retry_after

CLOCK = frozenset({"RequestTimeTooSkewed"})
EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "InvalidToken"})
ELSEWHERE = frozenset(
    {"PermanentRedirect", "TemporaryRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"}
)
NO_UPLOAD = frozenset({"NoSuchUpload"})
NO_KEY = frozenset({"NoSuchKey", "NotFound", "NoSuchVersion"})
UNSUPPORTED = frozenset({"NotImplemented", "MethodNotAllowed", "NotSupported", "UnsupportedOperation"})
_WRONG_KEY = frozenset(
    {"InvalidAccessKeyId", "SignatureDoesNotMatch", "AuthorizationHeaderMalformed", "NotSignedUp", "InvalidSecurity"}
)
_BUSY = frozenset(
    {"SlowDown", "ServiceUnavailable", "InternalError", "RequestTimeout", "Throttling", "ThrottlingException"}
    | {
        "TooManyRequests",
        "RequestLimitExceeded",
        "BandwidthLimitExceeded",
        "OperationAborted",
        "XMinioServerNotInitialized",
    }
    | {"ConditionalRequestConflict", "IncompleteBody"}
)
_DAMAGED = frozenset(
    {"BadDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch", "InvalidDigest", "ChecksumMismatch"}
)
_REASONS = {
    "NoSuchBucket": "bucket",
    "EntityTooLarge": "too_large",
    "EntityTooSmall": "too_small",
    "KeyTooLongError": "name",
    "QuotaExceeded": "quota",
    "PreconditionFailed": "exists",
    "InvalidObjectState": "archived",
    "InvalidStorageClass": "option",
}
_BY_STATUS = {
    402: "quota",
    403: "forbidden",
    404: "not_found",
    409: "conflict",
    412: "exists",
    413: "too_large",
    507: "quota",
}
_HINTS = {
    "bucket": "Check the bucket's name and the endpoint.",
    "forbidden": "Check what these credentials may do in that bucket, then run 'ppcli resume'.",
    "too_large": "Choose another target, or a smaller --chunk-size.",
    "exists": "Choose another name, or leave --immutable out to replace it.",
    "quota": "Free space there, or ask who runs it for more; then run 'ppcli resume'.",
    "unsupported": "Use the server's own tools for this.",
}
_REGION = re.compile(r"[a-z0-9-]{2,40}")


@dataclass(frozen=True, slots=True)
class Fault:
    """A reply that is no success. `region` is the one that the server names, `code` is empty for a bare status."""

    status: int
    code: str
    words: str
    host: str
    region: str | None
    headers: Mapping[str, str]

    @classmethod
    def of(cls, reply: Reply, host: str) -> Fault:
        node = s3_xml.error_of(reply.content)
        code = (node.text("Code") if node else None) or ""
        said = (node.text("Message") if node else None) or ""
        words = own_words(Reply(reply.status, {}, (said or ("" if node else "x")).encode())) if said else ""
        region = reply.headers.get("x-amz-bucket-region") or (node.text("Region") if node else None)
        if region is not None and not _REGION.fullmatch(region):
            region = None
        return cls(reply.status, code[:60], words if said or node else own_words(reply), host, region, reply.headers)

    @property
    def elsewhere(self) -> bool:
        """The bucket is in another region."""
        return self.code in ELSEWHERE or self.status in (301, 302, 307, 308)

    @property
    def forbidden(self) -> bool:
        return self.status == 403 and self.code not in CLOCK | EXPIRED | _WRONG_KEY

    @property
    def unsupported(self) -> bool:
        return self.status in (405, 501) or self.code in UNSUPPORTED

    @property
    def told(self) -> str:
        return f"{self.code or self.status}: {self.words}".rstrip(": .")

    def error(self) -> PpcliError | StepFailure:
        """As the pipeline wants it."""
        told = self.told
        if self.code in NO_UPLOAD:
            return SessionLost("the server no longer knows its upload")
        if self.code in _DAMAGED:
            return Damaged(f"{self.host} answers {told}")
        if self.code in _BUSY or self.status in (408, 425, 429) or (self.status >= 500 and not self._final):
            return Transient(f"{self.host} answers {told}", retry_after=retry_after(self.headers))
        return self._credentials() or self._refused()

    def _credentials(self) -> Credentials | None:
        if self.code in EXPIRED:
            hint = "Renew them (such as 'aws sso login'), then run 'ppcli resume'."
            return Credentials(f"The AWS credentials have expired ({self.told}).", hint=hint, reason="expired")
        if self.code in _WRONG_KEY or self.status == 401:
            hint = "Check the access key, the secret and the region."
            return Credentials(
                f"{self.host} does not accept the credentials ({self.told}).", hint=hint, reason="refused"
            )
        return None

    def _refused(self) -> Rejected:
        if self.code in CLOCK:
            said = f"{self.host} does not accept this computer's clock ({self.told})."
            return Rejected(said, hint="Set this computer's clock.", reason="clock")
        if self.elsewhere:
            hint = "Name the bucket's region with region=R in the target's URL."
            return Rejected(f"The bucket is in another region ({self.told}).", hint=hint, reason="redirect")
        hint = _HINTS.get(self._reason, "Check the target's URL and the name, and whether the server speaks S3.")
        return Rejected(f"{self.host} refuses: {self.told}.", hint=hint, reason=self._reason)

    @property
    def _final(self) -> bool:
        return self.unsupported or self.status == 507

    @property
    def _reason(self) -> str:
        if self.unsupported:
            return "unsupported"
        return _REASONS.get(self.code) or _BY_STATUS.get(self.status, f"http_{self.status}")
