"""A real S3 server for tests: moto's, over HTTP, with the check of signed links that it lacks."""

from __future__ import annotations

import calendar
import hmac
import logging
import time
import uuid
from collections.abc import Callable, Iterable
from threading import Thread
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

import boto3
from botocore.auth import SIGV4_TIMESTAMP, S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

from media_pipeline.storage.s3_address import S3Address, S3Keys

KEYS = S3Keys("AKIATESTTESTTESTTEST", "test-secret-test-secret-test-secret")
REGION = "eu-central-1"

logging.getLogger("werkzeug").setLevel(logging.WARNING)  # else a line for each request

Wsgi = Callable[[dict[str, Any], Any], Iterable[bytes]]


def client_of(url: str) -> Any:
    """The library's own client of a test server, which accepts KEYS."""
    return boto3.client(
        "s3",
        endpoint_url=url,
        region_name=REGION,
        aws_access_key_id=KEYS.access_key_id,
        aws_secret_access_key=KEYS.secret_access_key,
        config=Config(s3={"addressing_style": "path"}),
    )


class S3Server:
    """Serves at `url` until it is stopped. `refuse` makes it answer every call with that status; None: as usual."""

    def __init__(self) -> None:
        self._moto: Wsgi = DomainDispatcherApplication(create_backend_app)
        self.refuse: tuple[int, str] | None = None
        #: Stands between the client and moto, if there is one; gets what a WSGI application gets, and moto.
        self.between: Callable[[dict[str, Any], Any, Wsgi], Iterable[bytes]] | None = None
        self.calls: list[str] = []  # METHOD and path of each
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.client = client_of(self.url)

    def bucket(self, prefix: str = "") -> S3Address:
        """A new one, empty."""
        name = f"b-{uuid.uuid4().hex[:16]}"
        self.client.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": REGION})
        return S3Address(bucket=name, prefix=prefix, endpoint=self.url, region=REGION, addressing="path")

    def environment(self, address: S3Address) -> dict[str, str]:
        """What a process of the product needs to store in a bucket of this server."""
        return {
            "STORAGE_URL": f"{address}?endpoint={address.endpoint}&region={address.region}",
            "AWS_ACCESS_KEY_ID": KEYS.access_key_id,
            "AWS_SECRET_ACCESS_KEY": KEYS.secret_access_key,
        }

    def objects(self, address: S3Address) -> list[str]:
        """Names of everything in the bucket."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=address.bucket)
        return [entry["Key"] for page in pages for entry in page.get("Contents", ())]

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _answer(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        self.calls.append(f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}")
        if self.refuse is not None:
            return _error(*self.refuse, environ, start_response)
        if "X-Amz-Signature=" in environ["QUERY_STRING"] and not _is_genuine(environ):
            return _error(403, "AccessDenied", environ, start_response)
        if self.between is not None:
            return self.between(environ, start_response, self._moto)
        return self._moto(environ, start_response)


def _error(status: int, code: str, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>no</Message></Error>".encode()
    start_response(f"{status} {code}", [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
    return [b"" if environ["REQUEST_METHOD"] == "HEAD" else body]


def _is_genuine(environ: dict[str, Any]) -> bool:
    """Whether S3 would honour a link: signed with our keys, begun, and not over. By AWS's own library."""
    query = dict(parse_qsl(environ["QUERY_STRING"], keep_blank_values=True))
    signature = query.pop("X-Amz-Signature")
    begin = calendar.timegm(time.strptime(query["X-Amz-Date"], SIGV4_TIMESTAMP))
    if not begin <= time.time() < begin + int(query["X-Amz-Expires"]):
        return False
    auth = S3SigV4QueryAuth(Credentials(KEYS.access_key_id, KEYS.secret_access_key), "s3", REGION)
    request = AWSRequest(environ["REQUEST_METHOD"], f"http://{environ['HTTP_HOST']}{quote(environ['PATH_INFO'])}")
    request.params = query
    request.context["timestamp"] = query["X-Amz-Date"]
    canonical = auth.canonical_request(request)
    return hmac.compare_digest(signature, auth.signature(auth.string_to_sign(request, canonical), request))


def parts_of(link: str) -> tuple[str, dict[str, str]]:
    """A link without its query, and the query."""
    parts = urlsplit(link)
    return parts._replace(query="").geturl(), dict(parse_qsl(parts.query))
