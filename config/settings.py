"""All settings: Django's first, then ours by topic. What may be set from outside is listed in docs/configuration.md."""

from __future__ import annotations

import hashlib
import os
from datetime import timedelta
from typing import Literal
from urllib.parse import urlsplit

from django.core.exceptions import ImproperlyConfigured

from config import (
    addresses,
    alerts,
    beside,
    body_limits,
    key_names,
    money,
    object_storage,
    openapi,
    people,
    secret_key,
    serving,
    telemetry,
    web_addresses,
)
from config import env as read
from config.embedded import home
from config.env import file_read
from config.framework import *  # noqa: F403 - each name is a setting
from config.framework import BASE_DIR
from config.names import KEY_NAMES
from config.running import running_simulator
from providers.api_keys import ApiKey, BadKeys, parse_key_accounts, unmatched
from providers.entry import ProviderEntry
from providers.registry import PROVIDERS
from providers.webhooks import ProofSetting
from video.infra import failpoints

env = read.load(BASE_DIR)
ENV_FILE = file_read(BASE_DIR)

REELWORKS_HOME = read.folder(env, "REELWORKS_HOME", ".reelworks", root=BASE_DIR)
SECRET_KEY = read.secret(env, "SECRET_KEY", least=secret_key.LEAST) or secret_key.kept_in(REELWORKS_HOME)
# Former ones: what they signed (sessions, links, tokens) is good until it ends.
SECRET_KEY_FALLBACKS = read.secrets(env, "SECRET_KEY_FALLBACKS", least=secret_key.LEAST)
home.mend(REELWORKS_HOME)
DEBUG = read.flag(env, "DEBUG")
PORT = read.whole(env, "PORT", 8000, least=1, most=65535)
HOST = read.address(env, "HOST", "127.0.0.1", read=web_addresses.interface)
PUBLIC_BASE_URL = read.address(env, "PUBLIC_BASE_URL", "", read=web_addresses.plain)
ALLOWED_HOSTS = read.each(env, "ALLOWED_HOSTS", "localhost,127.0.0.1,[::1]", read=web_addresses.served_name)
if PUBLIC_BASE_URL:
    ALLOWED_HOSTS.append(web_addresses.bracketed(urlsplit(PUBLIC_BASE_URL).hostname or ""))

INSTALLED_APPS = [
    "config.apps.ConfigApp",
    "video",
    "unfold.apps.BasicAppConfig",  # the site is ours; its templates stand before Django's own
    "config.admin_app.AdminApp",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "corsheaders",
    "rest_framework",
    "drf_spectacular_sidecar",
    "django_otp",
    "django_otp.plugins.otp_totp",
]
LOGIN_URL = "/admin/login/"
CSRF_FAILURE_VIEW = "video.web.pages.csrf_failure"
MAX_BODY_BYTES = 64 * 1024  # of a JSON call; a prompt has at most a few thousand characters
DATA_UPLOAD_MAX_MEMORY_SIZE = 2 * 1024 * 1024
# Of one start image, however it comes: fetched, uploaded, or inside the order.
UPLOAD_MAX_BYTES = read.whole(env, "UPLOAD_MAX_BYTES", 20 * 1024**2, least=64 * 1024, most=20 * 1024**2)
FILE_UPLOAD_MAX_MEMORY_SIZE = UPLOAD_MAX_BYTES + MAX_BODY_BYTES  # the front has received it into memory anyway
# Of the calls that may have a picture in them, or many orders.
MAX_BODY_BYTES_OF = body_limits.by_address(json_bytes=MAX_BODY_BYTES, picture_bytes=UPLOAD_MAX_BYTES)

# --- database and broker -------------------------------------------------------------------------------------------

EMBEDDED_DATABASE = not env.str("DATABASE_URL", default="")
EMBEDDED_BROKER = not env.str("CELERY_BROKER_URL", default="")


def _embedded_urls() -> tuple[str, str]:
    from config import embedded

    return embedded.urls(REELWORKS_HOME)


def _embedded_postgres() -> str:
    from config import embedded

    return embedded.postgres_version()


EMBEDDED_POSTGRES_VERSION = _embedded_postgres() if EMBEDDED_DATABASE else ""

DATABASES = {
    "default": addresses.database(
        _embedded_urls()[0] if EMBEDDED_DATABASE else env.str("DATABASE_URL"),
        wait_s=read.number(env, "DATABASE_WAIT_SECONDS", 10, least=0.1, most=60),
    )
}

CELERY_BROKER_URL = addresses.broker(_embedded_urls()[1] if EMBEDDED_BROKER else env.str("CELERY_BROKER_URL"))
# Celery itself prefers CELERY_BROKER_URL of the environment, as it was typed, to the setting; but these to both.
CELERY_BROKER_READ_URL = CELERY_BROKER_WRITE_URL = CELERY_BROKER_URL

# --- sign-in -------------------------------------------------------------------------------------------------------

JWT_ACCESS_MINUTES = read.number(env, "JWT_ACCESS_MINUTES", 60, least=1, most=24 * 60)
COOKIE_SAMESITE: Literal["Lax", "Strict", "None"] = read.choice(
    env, "COOKIE_SAMESITE", "Lax", among=("Lax", "Strict", "None")
)
# Days after a login at which its user has to log in again, however often it is refreshed.
LOGIN_DAYS = read.number(env, "LOGIN_DAYS", 30, least=1, most=365)
SIGN_UP, SIGN_UP_CREDITS, SENDS_EMAIL = people.sign_up(env)
vars().update(people.mail(env, PUBLIC_BASE_URL))
REFRESH_DAYS = 14  # a login that is not refreshed for so long is over
# Whether the admin asks for a code of an authenticator app after the password.
ADMIN_SECOND_FACTOR = read.choice(env, "ADMIN_SECOND_FACTOR", "off", among=("off", "optional", "required"))
# What the app calls it.
OTP_TOTP_ISSUER = " ".join(filter(None, ("Reelworks", urlsplit(PUBLIC_BASE_URL).hostname)))
OTP_TOTP_THROTTLE_FACTOR = 0  # video.web.logins.throttle counts the tries
FRONTEND_ORIGINS = read.each(env, "FRONTEND_ORIGINS", read=web_addresses.origin)
COOKIE_SECURE = read.flag(env, "COOKIE_SECURE", default=PUBLIC_BASE_URL.startswith("https://"))
_NAMES = ("token", "__Host-token")  # browsers take the second one from this very host and over TLS only
COOKIE_NAME = read.choice(env, "COOKIE_NAME", _NAMES[COOKIE_SECURE], among=_NAMES)
if COOKIE_NAME != "token" and not COOKIE_SECURE:
    raise ImproperlyConfigured("COOKIE_NAME may be __Host-token only with COOKIE_SECURE=1.")
REFRESH_COOKIE_NAME = "__Secure-refresh" if COOKIE_SECURE else "refresh"  # not __Host-: it has a path
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = COOKIE_SECURE
SESSION_COOKIE_HTTPONLY = CSRF_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = CSRF_COOKIE_SAMESITE = "Lax"
# By such a name a browser takes the cookie from this very host only, and over TLS only.
_prefix = "__Host-" if COOKIE_SECURE else ""
SESSION_COOKIE_NAME, CSRF_COOKIE_NAME = f"{_prefix}sessionid", f"{_prefix}csrftoken"
MESSAGE_STORAGE = "django.contrib.messages.storage.session.SessionStorage"  # no third cookie
BEHIND_TLS_PROXY = read.flag(env, "BEHIND_TLS_PROXY")
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if BEHIND_TLS_PROXY else None

_by_https = PUBLIC_BASE_URL.startswith("https://")
# A day: long enough to count for who comes back, short enough to get over a certificate that lapsed.
HSTS_SECONDS = read.whole(env, "HSTS_SECONDS", 86400 if _by_https else 0, least=0, most=63_072_000)
HSTS_INCLUDE_SUBDOMAINS = read.flag(env, "HSTS_INCLUDE_SUBDOMAINS")
HSTS_PRELOAD = read.flag(env, "HSTS_PRELOAD")
if HSTS_PRELOAD and not (HSTS_INCLUDE_SUBDOMAINS and HSTS_SECONDS >= 31_536_000):
    raise ImproperlyConfigured("HSTS_PRELOAD needs HSTS_INCLUDE_SUBDOMAINS=1 and HSTS_SECONDS=31536000 or more.")
HTTPS_REDIRECT = read.flag(env, "HTTPS_REDIRECT", default=_by_https and BEHIND_TLS_PROXY)
if HTTPS_REDIRECT and not (_by_https and BEHIND_TLS_PROXY):
    raise ImproperlyConfigured("HTTPS_REDIRECT needs BEHIND_TLS_PROXY=1 and a PUBLIC_BASE_URL that is https.")
SILENCED_SYSTEM_CHECKS = [
    "security.W001", "security.W002",  # HeadersMiddleware sends what those two would, on more answers
    "security.W010", "security.W016",  # video.W004, W010 and W011 say it with the names of our settings
]  # fmt: skip
# Proxies whose X-Forwarded-For is believed.
TRUSTED_PROXIES = read.each(env, "TRUSTED_PROXIES", read=web_addresses.network)
_own_origin = [web_addresses.origin_of(PUBLIC_BASE_URL)] if PUBLIC_BASE_URL else []
CSRF_TRUSTED_ORIGINS = _own_origin + FRONTEND_ORIGINS

CORS_ALLOWED_ORIGINS = FRONTEND_ORIGINS
CORS_ALLOW_CREDENTIALS = True
CORS_URLS_REGEX = r"^/(api|storage|v1)/"
CORS_ALLOW_METHODS = ["GET", "HEAD", "POST", "PATCH", "DELETE"]
CORS_ALLOW_HEADERS = ["accept", "authorization", "content-type", "idempotency-key", *serving.ASKED_BY_SCRIPTS]
CORS_EXPOSE_HEADERS = ["idempotency-replayed", "retry-after", "deprecation", "sunset", "link", *serving.READ_BY_SCRIPTS]

# What `aud` of a token must be, or have in its list, and what `iss` may be besides our own; a token may lack both.
JWT_AUDIENCE = read.text(env, "JWT_AUDIENCE", "reelworks")
JWT_ISSUERS = read.words(env, "JWT_ISSUERS")
# A login of your own may sign with the same key; its tokens are accepted here.
_shared_key = read.secret(env, "JWT_SIGNING_KEY", least=32)


def _derived_key(secret_key: str) -> str:
    return hashlib.sha256(b"reelworks jwt " + secret_key.encode()).hexdigest()


# Tokens are also good under these.
JWT_KEY_FALLBACKS = [] if _shared_key else [_derived_key(one) for one in SECRET_KEY_FALLBACKS]
SIMPLE_JWT = {
    "ACCESS_TOKEN_LIFETIME": timedelta(minutes=JWT_ACCESS_MINUTES),
    "REFRESH_TOKEN_LIFETIME": timedelta(days=REFRESH_DAYS),
    "SIGNING_KEY": _shared_key or _derived_key(SECRET_KEY),
    "AUTH_HEADER_TYPES": ("Bearer",),
    "UPDATE_LAST_LOGIN": False,
}
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["video.api.authentication.TokenAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["video.api.parsing.StrictJSONParser"],
    "EXCEPTION_HANDLER": "video.api.errors.exception_handler",
    "UNAUTHENTICATED_USER": None,
    "DEFAULT_SCHEMA_CLASS": "video.api.contract.openapi.AutoSchema",
}
SPECTACULAR_SETTINGS = openapi.SETTINGS

# --- providers -----------------------------------------------------------------------------------------------------

# Simulation is all or nothing: with it on, no configured key and no base URL is even read, and without it a provider
# that has no key is simply unavailable.
# A command typed beside a `make up` that simulates for want of any key belongs to that system.
_named_keys = key_names.parse(read.text(env, "REELWORKS_KEY_FINGERPRINTS"))
_has_keys = bool(_named_keys) or any(read.text(env, name) for name in KEY_NAMES)
_beside = "" if _has_keys else running_simulator(REELWORKS_HOME)
SIMULATE = read.flag(env, "REELWORKS_SIMULATE", default=bool(_beside))
_simulator = _beside or "http://127.0.0.1:8900"
SIMULATOR_URL = read.address(env, "REELWORKS_SIMULATOR_URL", _simulator, read=web_addresses.plain)
SIMULATOR_PORT = read.whole(env, "SIMULATOR_PORT", 0, least=0, most=65535)  # 0: one that is free


def _keys(provider: ProviderEntry) -> tuple[ApiKey, ...]:
    if not SIMULATE and provider.name in _named_keys:
        return _named_keys[provider.name]
    name = provider.keys_setting
    text = f"simulator=simulated-{provider.name}-key" if SIMULATE else read.text(env, name)
    try:
        return provider.parse_keys(text, variable=name)
    except BadKeys as err:
        raise ImproperlyConfigured(f"{err}.") from None  # the cause may hold what was typed


PROVIDER_KEYS = {provider.name: _keys(provider) for provider in PROVIDERS}


def _key_accounts() -> dict[tuple[str, str], str]:
    """KEY_ACCOUNTS as (provider, fingerprint) → account. A name or fingerprint that no key has stops the start: a group
    that silently fell apart would give each of its keys the whole account's limit.
    """
    if SIMULATE:
        return {}
    try:
        accounts = parse_key_accounts(read.text(env, "KEY_ACCOUNTS"), keys=PROVIDER_KEYS)
    except BadKeys as err:
        raise ImproperlyConfigured(f"{err}.") from None
    if not {provider for provider, _ in accounts} <= set(PROVIDER_KEYS):
        raise ImproperlyConfigured(f"KEY_ACCOUNTS: each entry must begin with one of {', '.join(PROVIDER_KEYS)}.")
    strays = unmatched(accounts, PROVIDER_KEYS)
    if strays:
        named = ", ".join(f"{provider} {fingerprint}" for provider, fingerprint in strays)
        raise ImproperlyConfigured(f"KEY_ACCOUNTS names fingerprints that no configured key has: {named}.")
    return accounts


KEY_ACCOUNTS = _key_accounts()


def _base_url(provider: ProviderEntry) -> str:
    if SIMULATE:
        return SIMULATOR_URL
    name, default = provider.base_url_setting, provider.default_base_url
    return read.address(env, name, default, read=web_addresses.provider_base)


PROVIDER_BASE_URLS = {provider.name: _base_url(provider) for provider in PROVIDERS}


def _callback_proof(provider: str, setting: ProofSetting) -> str:
    """What the provider's call-backs are checked with. A value that proves nothing stops the start."""
    if SIMULATE:
        return f"{SIMULATOR_URL}{setting.simulated}" if setting.is_address else setting.simulated
    if setting.is_address:
        value = read.address(env, setting.name, setting.default, read=web_addresses.plain)
    else:
        value = read.text(env, setting.name, setting.default)
    problem = setting.problem(value, PROVIDER_BASE_URLS[provider]) if value else None
    if problem is not None:
        raise ImproperlyConfigured(f"{setting.name} {problem}.")
    return value


# PIKA_WEBHOOK_JWKS_URL, KLING_WEBHOOK_SECRET, and what else the providers' rows declare.
globals().update(
    {
        provider.callbacks.setting.name: _callback_proof(provider.name, provider.callbacks.setting)
        for provider in PROVIDERS
        if provider.callbacks is not None
    }
)
# The demo user signs in through a backend that is there only while simulating.
AUTHENTICATION_BACKENDS = [
    "django.contrib.auth.backends.ModelBackend",
    *(["video.web.demo_login.DemoBackend"] if SIMULATE else []),
]
SUBMIT_TIMEOUT_SECONDS = read.number(env, "SUBMIT_TIMEOUT_SECONDS", 60, least=1, most=300)
READ_TIMEOUT_SECONDS = read.number(env, "READ_TIMEOUT_SECONDS", 20, least=1, most=120)


def _each_provider(name: str, default: float, *, least: float, most: float) -> dict[str, float]:
    """A number for all providers, or one a provider: RUNWAY_… before the plain name."""
    everywhere = read.number(env, name, default, least=least, most=most)
    return {
        provider.name: read.number(env, f"{provider.prefix}{name}", everywhere, least=least, most=most)
        for provider in PROVIDERS
    }


# Seconds between two polls of one job at least; a provider's own least interval still holds for the real one.
POLL_INTERVAL_SECONDS = _each_provider("POLL_INTERVAL_SECONDS", 1 if SIMULATE else 5, least=0.2, most=600)
# Poll requests a second of one account at most; with more open jobs each is polled more rarely.
POLL_REQUESTS_PER_SECOND = _each_provider("POLL_REQUESTS_PER_SECOND", 100, least=0.01, most=100_000)
# For how long a submit of unknown outcome keeps its slot: the longest render time.
UNKNOWN_WINDOW_SECONDS = _each_provider("UNKNOWN_WINDOW_SECONDS", 3600, least=1, most=86400)
# Where the provider can look a job up by our reference: seconds after a submit without a clear answer at which we ask.
LOOKUP_SECONDS = read.numbers(env, "LOOKUP_SECONDS", "15,60,300", most=86400)
# On: a task whose submit's outcome stays unknown is tried again, at the risk of two bills for one video.
RETRY_UNKNOWN_SUBMITS = read.flag(env, "RETRY_UNKNOWN_SUBMITS")
# Provider faults in a row that open a model's circuit.
CIRCUIT_FAULTS = read.whole(env, "CIRCUIT_FAULTS", 5, least=1, most=1_000_000)
# Slots of one key and model until the provider's own account call or an operator says otherwise.
SLOTS_PER_KEY = read.whole(env, "SLOTS_PER_KEY", 1000 if SIMULATE else 2, least=1, most=1_000_000)
# A task that has waited for a slot for so long is given up.
WAIT_DEADLINE_SECONDS = read.number(env, "WAIT_DEADLINE_SECONDS", 86400, least=60, most=30 * 86400)
TASK_DEADLINE_SECONDS = read.number(env, "TASK_DEADLINE_SECONDS", 3600, least=10, most=7 * 86400)

# --- web -----------------------------------------------------------------------------------------------------------

# Requests that a web process answers at once. None of them waits for its client: see video/web/front.
WEB_THREADS = read.whole(env, "WEB_THREADS", 16, least=2, most=1000)
# Of the API, of one user (unless an operator gave another number) and of one API key; 0: no limit.
REQUESTS_PER_MINUTE = read.whole(env, "REQUESTS_PER_MINUTE", 300_000, least=0, most=1_000_000_000)
REQUESTS_PER_MINUTE_PER_KEY = read.whole(env, "REQUESTS_PER_MINUTE_PER_KEY", 0, least=0, most=1_000_000_000)

# --- pipeline ------------------------------------------------------------------------------------------------------

CREDITS_PER_VIDEO, CREDITS_PER_RENDER = money.prices(env)
CREDIT_USD, UNIT_USD = money.worth(env)
# A process has this long to end well after SIGTERM; then its supervisor may kill it.
DRAIN_SECONDS = read.number(env, "DRAIN_SECONDS", 6, least=1, most=3600)
CELERY_WORKER_SOFT_SHUTDOWN_TIMEOUT = DRAIN_SECONDS
# A worker that receives nothing for so long, while messages wait for it, ends in order to be started again.
WATCHDOG_SECONDS = read.number(env, "WATCHDOG_SECONDS", 60, least=1, most=3600)
STAGE_LEASE_SECONDS = read.number(env, "STAGE_LEASE_SECONDS", 20, least=1, most=20)
KEEP_SOURCE_DAYS = read.number(env, "KEEP_SOURCE_DAYS", 0, least=0, most=3650)
KEEP_VIDEOS_DAYS = read.number(env, "KEEP_VIDEOS_DAYS", 0, least=0, most=3650)  # 0: for ever
KEEP_FAILED_DAYS = read.number(env, "KEEP_FAILED_DAYS", 7, least=0, most=3650)
MAX_SOURCE_BYTES = read.whole(env, "MAX_SOURCE_BYTES", 2 * 1024**3, least=1024, most=1024**4)
# Of all uploads of one user together.
UPLOAD_QUOTA_BYTES = read.whole(env, "UPLOAD_QUOTA_BYTES", 1024**3, least=20 * 1024**2, most=1024**4)
UPLOAD_KEEP_HOURS = read.number(env, "UPLOAD_KEEP_HOURS", 24, least=1, most=8760)
IMAGE_TIMEOUT_SECONDS = read.number(env, "IMAGE_TIMEOUT_SECONDS", 30, least=1, most=300)
DOWNLOAD_TIMEOUT_SECONDS = read.number(env, "DOWNLOAD_TIMEOUT_SECONDS", 900, least=1, most=86400)
# Pauses between two fetches of a finished video that fail, in turn; the last one goes on until the task's deadline.
DOWNLOAD_RETRY_SECONDS = read.numbers(env, "DOWNLOAD_RETRY_SECONDS", "2,4,8,16,32,60", most=3600)
TRANSCODE_TIMEOUT_SECONDS = read.number(env, "TRANSCODE_TIMEOUT_SECONDS", 1800, least=1, most=86400)
# Sound that is longer than the picture: whether the last frame stands to its end, or the sound is cut.
KEEP_LONG_SOUND = read.flag(env, "KEEP_LONG_SOUND", default=True)
COVER, EXTRAS = beside.cover(read.text(env, "COVER", "first")), beside.extras(read.words(env, "EXTRAS"))
FFMPEG_BINARY = read.text(env, "FFMPEG_BINARY")
# An own label of AI-made videos: a tag that names the producer, and a text drawn into the picture.
LABEL_PRODUCER = read.text(env, "LABEL_PRODUCER")
LABEL_MARK = read.text(env, "LABEL_MARK")
LABEL_FONT = read.text(env, "LABEL_FONT")
# What processes that read foreign media give up: all that the host allows, the same or nothing is done, nothing.
MEDIA_ISOLATION = read.choice(env, "MEDIA_ISOLATION", "auto", among=("auto", "require", "off"))
# Threads of a worker for what mostly waits; the Procfile starts as many.
VIDEO_CONCURRENCY = read.whole(env, "VIDEO_CONCURRENCY", 16, least=1, most=1024)
# Transcodes at once on this host; the Procfile starts as many threads.
MEDIA_CONCURRENCY = read.whole(env, "MEDIA_CONCURRENCY", 2, least=1, most=1024)
# Together they use every core once: more threads than cores only make each transcode cost more.
_threads_each = max(1, (os.cpu_count() or 1) // MEDIA_CONCURRENCY)
FFMPEG_THREADS = read.whole(env, "FFMPEG_THREADS", _threads_each, least=1, most=64)
# What is asked for twice within so many seconds, at an address of clients that know no Idempotency-Key, is one video.
REPEAT_WINDOW_SECONDS = read.number(env, "REPEAT_WINDOW_SECONDS", 60, least=0, most=86400)
# Tasks that may wait for a slot, of one user (unless an operator gave another number) and of all.
MAX_WAITING_PER_USER = read.whole(env, "MAX_WAITING_PER_USER", 1000, least=1, most=10_000_000)
MAX_WAITING = read.whole(env, "MAX_WAITING", 100_000, least=1, most=10_000_000)
# Bytes that the stored files of one user may have (unless an operator gave another number); 0: no limit.
MAX_STORED_BYTES_PER_USER = read.whole(env, "MAX_STORED_BYTES_PER_USER", 0, least=0, most=1024**6)
# A worker with less room than this takes no new downloads; when none has more, nothing new is submitted.
MIN_FREE_BYTES = read.whole(env, "MIN_FREE_BYTES", 1024**3, least=0, most=1024**5)
WEBHOOK_TIMEOUT_SECONDS = read.number(env, "WEBHOOK_TIMEOUT_SECONDS", 15, least=1, most=60)
WEBHOOK_KEEP_DAYS = read.number(env, "WEBHOOK_KEEP_DAYS", 30, least=1, most=3650)
WEBHOOK_PRIVATE_HOSTS = read.each(env, "WEBHOOK_PRIVATE_HOSTS", read=web_addresses.private_host)
ALERT_RECEIVERS, ALERT_SECRET = alerts.receivers(env, sends_email=SENDS_EMAIL, private_hosts=WEBHOOK_PRIVATE_HOSTS)
ALERT_AFTER_SECONDS = alerts.after_s(env)
PRIVATE_HOSTS_ALLOWED = read.each(env, "PRIVATE_HOSTS_ALLOWED", read=web_addresses.private_host)


def _arm_failpoints() -> None:
    try:
        for pair in read.words(env, "REELWORKS_FAILPOINT"):
            point, _, action = pair.partition("=")
            failpoints.arm(point, action)
    except ValueError:
        known = "a point of video/infra/failpoints.py with kill, raise or freeze, such as poll.claimed=kill"
        raise ImproperlyConfigured(f"REELWORKS_FAILPOINT must be {known}.") from None


_arm_failpoints()

# --- storage -------------------------------------------------------------------------------------------------------

STORAGE_LOCAL_PATH = read.folder(env, "STORAGE_LOCAL_PATH", "./storage", root=BASE_DIR)
# Unfinished work is always on a local disk; beside local storage, so that publishing never copies.
SCRATCH_PATH = read.folder(env, "SCRATCH_PATH", str(STORAGE_LOCAL_PATH / ".scratch"), root=BASE_DIR)
# Of a stored file. A folder gets the same, and may be entered by whom the files may be read by.
_modes = ("0600", "0640", "0644", "0660", "0664")
STORAGE_FILE_MODE = int(read.choice(env, "STORAGE_FILE_MODE", "0640", among=_modes), base=8)
_url = read.text(env, "STORAGE_URL")
STORAGE_OFFLOAD = serving.offload(read.text(env, "STORAGE_OFFLOAD", "off"), folder=STORAGE_LOCAL_PATH, bucket=_url)
LINK_LIFETIME_SECONDS = read.whole(env, "LINK_LIFETIME_SECONDS", 3600, least=60, most=7 * 86400)

_region = read.text(env, "AWS_REGION") or read.text(env, "AWS_DEFAULT_REGION")
_bucket = object_storage.configured(
    _url,
    region=_region,
    beside={
        "STORAGE_PUBLIC_ENDPOINT": read.text(env, "STORAGE_PUBLIC_ENDPOINT"),
        "STORAGE_CDN_URL": read.text(env, "STORAGE_CDN_URL"),
        "STORAGE_CDN_LINKS": read.choice(env, "STORAGE_CDN_LINKS", "signed", among=("signed", "plain")),
        "STORAGE_ENCRYPTION": read.choice(env, "STORAGE_ENCRYPTION", "bucket", among=("bucket", "AES256", "aws:kms")),
        "STORAGE_KMS_KEY": read.text(env, "STORAGE_KMS_KEY"),
        "STORAGE_CLASS": read.text(env, "STORAGE_CLASS"),
    },
    link_lifetime_s=LINK_LIFETIME_SECONDS,
)
# The bucket as we see it and as clients do; None: videos are in STORAGE_LOCAL_PATH.
OBJECT_STORAGE, OBJECT_STORAGE_FOR_CLIENTS = _bucket.address, _bucket.for_clients
OBJECT_STORAGE_OPTIONS = _bucket.options
OBJECT_STORAGE_KEYS = None
if OBJECT_STORAGE:  # without a bucket, keys of other programs mean nothing
    _key, _secret = read.token(env, "AWS_ACCESS_KEY_ID"), read.token(env, "AWS_SECRET_ACCESS_KEY")
    OBJECT_STORAGE_KEYS = object_storage.keys(_key, _secret, read.token(env, "AWS_SESSION_TOKEN"))

LOG_FORMAT, ACCESS_LOG, LOGGING = telemetry.lines(env)
METRICS_TOKEN = telemetry.token(env)
SENTRY_DSN, SENTRY_ENVIRONMENT = telemetry.errors(env)
WRITES_TRACES = telemetry.traces(env)
