"""What the answers of an S3 server mean to the pipeline: is the file gone, is the storage away, or does it refuse us?

An answer that isn't understood is never a success, and never "no such file": it is StorageDown, and asked again.

Source: S3's list of errors (https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html), read 2026-11-28.
"""

from __future__ import annotations

import errno
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from typing import Any

from botocore import exceptions as boto
from botocore.parsers import ResponseParserError

from media_pipeline.errors import MediaError, StorageDown, StorageRefused

#: Answers that mean "not now", beside every 5xx: too many calls, a body that was damaged, parts that are gone.
_PASSING = frozenset(
    {
        *("SlowDown", "RequestTimeout", "Throttling", "ThrottlingException", "RequestLimitExceeded"),
        *("BadDigest", "IncompleteBody", "XAmzContentSHA256Mismatch", "InvalidPart", "InvalidPartOrder"),
        "NoSuchUpload",
    }
)
_PASSING_STATUS = frozenset({408, 409, 425, 429})
#: With 409, what servers other than AWS's say of a key that is taken.
_TAKEN = frozenset({"FileAlreadyExists", "BlobAlreadyExists", "EntityAlreadyExists", "ObjectAlreadyExists"})
_CLOCKS_DIFFER = frozenset({"RequestTimeTooSkewed", "RequestExpired", "RequestInTheFuture"})
_CREDENTIALS = (
    boto.NoCredentialsError,
    boto.PartialCredentialsError,
    boto.CredentialRetrievalError,
    boto.TokenRetrievalError,
    boto.UnauthorizedSSOTokenError,
    boto.ProfileNotFound,
)
_CODE = re.compile(r"[A-Za-z0-9._-]{1,60}", re.ASCII)
_REGION = re.compile(r"[a-z0-9-]{1,40}", re.ASCII)


class Taken(StorageRefused):
    """The key of a create-only write is taken."""


class NotOffered(StorageRefused):
    """The server doesn't know what was asked of it."""


@contextmanager
def trouble() -> Iterator[None]:
    """Errors of AWS's library in the pipeline's words. Their texts hold addresses and are not repeated."""
    try:
        yield
    except boto.ClientError as err:
        raise _meaning(err) from None
    except _CREDENTIALS as err:
        raise StorageRefused(f"no usable credentials ({type(err).__name__})") from None
    except ResponseParserError:
        raise StorageDown("the storage's answer can't be read") from None
    except boto.BotoCoreError as err:
        raise StorageDown(f"the storage can't be reached ({type(err).__name__})") from None


def needed(answer: Mapping[str, Any], name: str) -> Any:
    """A part that every answer of this kind has. Raises StorageDown for one that lacks it: a proxy's page, perhaps."""
    found = answer.get(name)
    if found is None or found == "":
        raise StorageDown(f"the storage's answer has no {name}")
    return found


def error_in_list(code: str) -> Exception:
    """What one entry means of the errors that an answer with 200 lists."""
    return _refusal(code if _CODE.fullmatch(code) else "an error", 200, {})


def _meaning(err: boto.ClientError) -> Exception:
    code = str(err.response.get("Error", {}).get("Code", ""))
    about = err.response.get("ResponseMetadata", {})
    status, headers = int(about.get("HTTPStatusCode", 0)), about.get("HTTPHeaders", {})
    if status == 404:
        return _missing(code, has_body=not err.operation_name.startswith("Head"))
    if status in {304, 412} or (status == 409 and code in _TAKEN):
        return Taken(f"the key is taken ({status})")
    return _refusal(code if _CODE.fullmatch(code) else "an error", status, headers)


def _missing(code: str, *, has_body: bool) -> Exception:
    """A 404 that names no key may be a proxy's, or of a bucket that is not there: no word about our file."""
    if code == "NoSuchKey" or not has_body:
        return FileNotFoundError(errno.ENOENT, "no such key")
    if code in {"404", ""}:
        return StorageDown("the storage answered 404, and not as S3 does")
    return _refusal(code, 404, {})


def _refusal(code: str, status: int, headers: Mapping[str, str]) -> Exception:
    said = f"{code} ({status})" if code != str(status) else code
    kind: type[MediaError] = StorageRefused
    text = f"the storage answered {said}"
    if code in _CLOCKS_DIFFER:
        text = f"the clock of this machine {_how_wrong(headers)}: set it ({said})"
    elif status in {301, 308} or code in {"PermanentRedirect", "AuthorizationHeaderMalformed"}:
        region = headers.get("x-amz-bucket-region", "")
        where = f", {region}" if _REGION.fullmatch(region) else ""
        text = f"the bucket is elsewhere{where}: STORAGE_URL's region or endpoint is wrong ({said})"
    elif 300 <= status < 400:
        kind, text = StorageDown, f"{text}, which is not followed"
    elif status == 501 or code == "NotImplemented":
        kind, text = NotOffered, f"the storage doesn't know what was asked ({said})"
    elif status >= 500 or status in _PASSING_STATUS or code in _PASSING:
        kind = StorageDown
    return kind(text, http_status=status)


def _how_wrong(headers: Mapping[str, str]) -> str:
    """By the clock of the server, which stamps its answers."""
    try:
        ahead_s = round(time.time() - parsedate_to_datetime(headers["date"]).timestamp())
    except (KeyError, ValueError):
        return "differs from the storage's"
    return f"is {abs(ahead_s)} s {'ahead of' if ahead_s > 0 else 'behind'} the storage's"
