"""Settings of a bucket: where it is, how objects are stored in it, and where links to them lead."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from django.core.exceptions import ImproperlyConfigured

from media_pipeline.storage import links, s3_links
from media_pipeline.storage.s3_address import BadAddress, S3Address, S3Keys, cdn_of, endpoint_of, parse
from media_pipeline.storage.s3_object import ObjectOptions

#: What settings beside STORAGE_URL say when they are not set; they mean nothing without it.
UNSET = {
    **dict.fromkeys(("STORAGE_PUBLIC_ENDPOINT", "STORAGE_CDN_URL", "STORAGE_KMS_KEY", "STORAGE_CLASS"), ""),
    "STORAGE_CDN_LINKS": "signed",
    "STORAGE_ENCRYPTION": "bucket",
}
_KMS_KEY = re.compile(r"[A-Za-z0-9:/_.-]{1,2048}", re.ASCII)
_CLASS = re.compile(r"[A-Z][A-Z0-9_]{0,39}", re.ASCII)
#: Objects of these classes can be read hours after they were asked for, not at once.
_SLOW_CLASSES = frozenset({"GLACIER", "DEEP_ARCHIVE"})


@dataclass(frozen=True)
class ObjectStorage:
    """The bucket as we see it and as clients do; None: videos are in STORAGE_LOCAL_PATH."""

    address: S3Address | None = None
    for_clients: S3Address | None = None
    options: ObjectOptions = field(default_factory=ObjectOptions)


def configured(url: str, *, region: str, beside: Mapping[str, str], link_lifetime_s: int) -> ObjectStorage:
    """What STORAGE_URL says, and the settings of UNSET `beside` it. Raises ImproperlyConfigured."""
    if not url:
        for name, unset in UNSET.items():
            if beside[name] != unset:
                raise ImproperlyConfigured(f"{name} is set, but STORAGE_URL is not.")
        return ObjectStorage()
    name = "STORAGE_URL"
    try:
        address = for_clients = parse(url, region=region)
        name = "STORAGE_PUBLIC_ENDPOINT"
        if beside[name]:
            for_clients = address.seen_from(endpoint_of(beside[name]))
        name = "STORAGE_CDN_URL"
        if beside[name]:
            for_clients = for_clients.through(cdn_of(beside[name]), plain=beside["STORAGE_CDN_LINKS"] == "plain")
        elif beside["STORAGE_CDN_LINKS"] != UNSET["STORAGE_CDN_LINKS"]:
            raise ImproperlyConfigured("STORAGE_CDN_LINKS is set, but STORAGE_CDN_URL is not.")
    except BadAddress as err:
        raise ImproperlyConfigured(f"{name} {err}") from None  # the cause may hold what was typed
    if links.longest_s(link_lifetime_s) > s3_links.LONGEST_S:
        raise ImproperlyConfigured("LINK_LIFETIME_SECONDS may be 483840 at most with STORAGE_URL: S3's limit.")
    return ObjectStorage(address, for_clients, _options(beside, link_lifetime_s))


def _options(beside: Mapping[str, str], kept_s: int) -> ObjectOptions:
    encryption, kms_key = beside["STORAGE_ENCRYPTION"], beside["STORAGE_KMS_KEY"]
    if kms_key and encryption != "aws:kms":
        raise ImproperlyConfigured("STORAGE_KMS_KEY is set, but STORAGE_ENCRYPTION is not aws:kms.")
    if kms_key and not _KMS_KEY.fullmatch(kms_key):
        raise ImproperlyConfigured("STORAGE_KMS_KEY must be the id, the alias or the ARN of a key.")
    storage_class = beside["STORAGE_CLASS"]
    if storage_class in _SLOW_CLASSES:
        raise ImproperlyConfigured("STORAGE_CLASS must be one whose files can be read at once, such as GLACIER_IR.")
    if storage_class and not _CLASS.fullmatch(storage_class):
        raise ImproperlyConfigured("STORAGE_CLASS must be the name of a class, such as STANDARD_IA.")
    return ObjectOptions(
        encryption="" if encryption == UNSET["STORAGE_ENCRYPTION"] else encryption,
        kms_key_id=kms_key,
        storage_class=storage_class,
        kept_s=kept_s,
        in_shared_caches=bool(beside["STORAGE_CDN_URL"]),
    )


def keys(key: str, secret: str, session: str) -> S3Keys | None:
    """The keys of the bucket; None: what AWS's library finds by itself, such as the machine's role.

    Raises ImproperlyConfigured for a key without its secret, or the other way round.
    """
    if bool(key) != bool(secret):
        missing, given = ("SECRET_ACCESS_KEY", "ACCESS_KEY_ID") if key else ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY")
        raise ImproperlyConfigured(f"AWS_{missing} is missing beside AWS_{given}.")
    return S3Keys(key, secret, session) if key else None
