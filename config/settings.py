"""All settings: Django's first, then ours by topic. What may be set from outside is listed in docs/configuration.md."""

from __future__ import annotations

import hashlib
import os
import secrets
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

from django.core.exceptions import ImproperlyConfigured

from config import addresses
from config import env as read
from config.running import running_simulator
from media_pipeline.storage import links, s3_links
from media_pipeline.storage.s3_address import BadAddress, S3Address, S3Keys, endpoint_of, parse
from providers.api_keys import ApiKey, BadKeys, parse_key_accounts, unmatched
from providers.entry import ProviderEntry
from providers.registry import PROVIDERS
from providers.webhooks import ProofSetting

BASE_DIR = Path(__file__).resolve().parent.parent
env = read.load(BASE_DIR)


def _under_root(value: str) -> Path:
    path = Path(value).expanduser()
    return path if path.is_absolute() else BASE_DIR / path


REELWORKS_HOME = _under_root(env.str("REELWORKS_HOME", default=".reelworks"))


def _secret_key() -> str:
    """SECRET_KEY, or one made once and kept in REELWORKS_HOME, so that links and logins outlive a restart."""
    configured = env.str("SECRET_KEY", default="")
    if configured:
        if len(configured) < 32:
            raise ImproperlyConfigured("SECRET_KEY must have at least 32 characters.")
        return configured
    path = REELWORKS_HOME / "secret_key"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        mine = path.with_name(f"secret_key.{os.getpid()}")
        mine.touch(mode=0o600)
        mine.write_text(secrets.token_urlsafe(48))
        try:
            os.link(mine, path)  # the first of two starts at once wins; both then read the same
        except FileExistsError:
            pass
        finally:
            mine.unlink()
    return path.read_text().strip()


SECRET_KEY = _secret_key()
DEBUG = read.flag(env, "DEBUG")
PORT = int(read.number(env, "PORT", 8000, least=1, most=65535))
PUBLIC_BASE_URL = read.origin(env, "PUBLIC_BASE_URL", "")
ALLOWED_HOSTS = read.words(env, "ALLOWED_HOSTS", "localhost,127.0.0.1,[::1]")
if PUBLIC_BASE_URL:
    ALLOWED_HOSTS.append(urlsplit(PUBLIC_BASE_URL).hostname or "")

INSTALLED_APPS = [
    "config",
    "video",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "corsheaders",
    "rest_framework",
]
MIDDLEWARE = [
    "video.web.outage_middleware.OutageMiddleware",
    "corsheaders.middleware.CorsMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
ROOT_URLCONF = "config.urls"
WSGI_APPLICATION = "config.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "video.web.demo_login.template_context",
            ]
        },
    }
]
APPEND_SLASH = False
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
STATIC_URL = "/static/"
WHITENOISE_USE_FINDERS = True  # no collectstatic step to forget
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator"},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
LOGIN_URL = "/admin/login/"
MAX_BODY_BYTES = 64 * 1024  # of a JSON call; a prompt has at most a few thousand characters
DATA_UPLOAD_MAX_MEMORY_SIZE = 2 * 1024 * 1024

# --- database and broker -------------------------------------------------------------------------------------------

EMBEDDED_DATABASE = not env.str("DATABASE_URL", default="")
EMBEDDED_BROKER = not env.str("CELERY_BROKER_URL", default="")


def _embedded_urls() -> tuple[str, str]:
    from config import embedded

    return embedded.urls(REELWORKS_HOME)


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
COOKIE_SAMESITE = env.str("COOKIE_SAMESITE", default="Lax").capitalize()
if COOKIE_SAMESITE not in {"Lax", "Strict", "None"}:
    raise ImproperlyConfigured("COOKIE_SAMESITE must be Lax, Strict or None.")
FRONTEND_ORIGINS = [origin.rstrip("/") for origin in read.words(env, "FRONTEND_ORIGINS")]
for _origin in FRONTEND_ORIGINS:
    if urlsplit(_origin).scheme not in {"http", "https"} or urlsplit(_origin).path:
        raise ImproperlyConfigured(f"FRONTEND_ORIGINS: {_origin!r} is no origin such as https://app.example.com.")
COOKIE_SECURE = read.flag(env, "COOKIE_SECURE", default=PUBLIC_BASE_URL.startswith("https://"))
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = COOKIE_SECURE
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if read.flag(env, "BEHIND_TLS_PROXY") else None
CSRF_TRUSTED_ORIGINS = ([PUBLIC_BASE_URL] if PUBLIC_BASE_URL else []) + FRONTEND_ORIGINS

CORS_ALLOWED_ORIGINS = FRONTEND_ORIGINS
CORS_ALLOW_CREDENTIALS = True
CORS_URLS_REGEX = r"^/api/"
CORS_ALLOW_HEADERS = ["accept", "authorization", "content-type", "idempotency-key"]
CORS_EXPOSE_HEADERS = ["idempotency-replayed", "retry-after"]

SIMPLE_JWT = {
    "ACCESS_TOKEN_LIFETIME": timedelta(minutes=JWT_ACCESS_MINUTES),
    "REFRESH_TOKEN_LIFETIME": timedelta(days=14),
    # A login of your own may sign with the same key; its tokens are accepted here.
    "SIGNING_KEY": env.str("JWT_SIGNING_KEY", default="")
    or hashlib.sha256(b"reelworks jwt " + SECRET_KEY.encode()).hexdigest(),
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
}

# --- providers -----------------------------------------------------------------------------------------------------

# Simulation is all or nothing: with it on, no configured key and no base URL is even read, and without it a provider
# that has no key is simply unavailable.
# A command typed beside a `make up` that simulates for want of any key belongs to that system.
_beside = "" if any(env.str(name, default="") for name in read.KEY_NAMES) else running_simulator(REELWORKS_HOME)
SIMULATE = read.flag(env, "REELWORKS_SIMULATE", default=bool(_beside))
SIMULATOR_URL = read.origin(env, "REELWORKS_SIMULATOR_URL", _beside or "http://127.0.0.1:8900")


def _keys(provider: ProviderEntry) -> tuple[ApiKey, ...]:
    name = provider.keys_setting
    text = f"simulated-{provider.name}-key" if SIMULATE else env.str(name, default="")
    try:
        return provider.parse_keys(text, variable=name)
    except BadKeys as err:
        raise ImproperlyConfigured(str(err)) from None  # the cause may hold what was typed


PROVIDER_KEYS = {provider.name: _keys(provider) for provider in PROVIDERS}


def _key_accounts() -> dict[tuple[str, str], str]:
    """KEY_ACCOUNTS as (provider, fingerprint) → account. A fingerprint that no key has stops the start: a group that
    silently fell apart would give each of its keys the whole account's limit.
    """
    if SIMULATE:
        return {}
    try:
        accounts = parse_key_accounts(env.str("KEY_ACCOUNTS", default=""), variable="KEY_ACCOUNTS")
    except BadKeys as err:
        raise ImproperlyConfigured(str(err)) from None
    strays = unmatched(accounts, PROVIDER_KEYS)
    if strays:
        named = ", ".join(f"{provider} {fingerprint}" for provider, fingerprint in strays)
        raise ImproperlyConfigured(f"KEY_ACCOUNTS names fingerprints that no configured key has: {named}.")
    return accounts


KEY_ACCOUNTS = _key_accounts()
PROVIDER_BASE_URLS = {
    provider.name: SIMULATOR_URL if SIMULATE else read.origin(env, provider.base_url_setting, provider.default_base_url)
    for provider in PROVIDERS
}


def _callback_proof(provider: str, setting: ProofSetting) -> str:
    """What the provider's call-backs are checked with. A value that proves nothing stops the start."""
    if SIMULATE:
        return f"{SIMULATOR_URL}{setting.simulated}" if setting.is_address else setting.simulated
    if setting.is_address:
        value = read.origin(env, setting.name, setting.default)
    else:
        value = env.str(setting.name, default=setting.default).strip()
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
LOOKUP_SECONDS = read.numbers(env, "LOOKUP_SECONDS", "15,60,300")
# On: a task whose submit's outcome stays unknown is tried again, at the risk of two bills for one video.
RETRY_UNKNOWN_SUBMITS = read.flag(env, "RETRY_UNKNOWN_SUBMITS")
# Provider faults in a row that open a model's circuit.
CIRCUIT_FAULTS = int(read.number(env, "CIRCUIT_FAULTS", 5, least=1, most=1_000_000))
# Slots of one key and model until the provider's own account call or an operator says otherwise.
SLOTS_PER_KEY = int(read.number(env, "SLOTS_PER_KEY", 1000 if SIMULATE else 2, least=1, most=1_000_000))
# A task that has waited for a slot for so long is given up.
WAIT_DEADLINE_SECONDS = read.number(env, "WAIT_DEADLINE_SECONDS", 86400, least=60, most=30 * 86400)
TASK_DEADLINE_SECONDS = read.number(env, "TASK_DEADLINE_SECONDS", 3600, least=10, most=7 * 86400)

# --- web -----------------------------------------------------------------------------------------------------------

# Requests at once in a web process, and how many of them may be videos that are being fetched: each holds a thread for
# as long as its client reads.
WEB_THREADS = int(read.number(env, "WEB_THREADS", 16, least=2, most=1000))
MAX_STREAMS = int(read.number(env, "MAX_STREAMS", max(1, WEB_THREADS * 3 // 4), least=1, most=1000))
if MAX_STREAMS >= WEB_THREADS:
    raise ImproperlyConfigured(
        f"MAX_STREAMS must be less than WEB_THREADS ({WEB_THREADS}), or the API may stand still."
    )

# --- pipeline ------------------------------------------------------------------------------------------------------

CREDITS_PER_VIDEO = int(read.number(env, "CREDITS_PER_VIDEO", 10, least=0, most=1_000_000))
# A process has this long to end well after SIGTERM; then its supervisor may kill it.
DRAIN_SECONDS = read.number(env, "DRAIN_SECONDS", 6, least=1, most=3600)
CELERY_WORKER_SOFT_SHUTDOWN_TIMEOUT = DRAIN_SECONDS
# A worker that receives nothing for so long, while messages wait for it, ends in order to be started again.
WATCHDOG_SECONDS = read.number(env, "WATCHDOG_SECONDS", 60, least=1, most=3600)
STAGE_LEASE_SECONDS = read.number(env, "STAGE_LEASE_SECONDS", 20, least=1, most=20)
KEEP_SOURCE_DAYS = read.number(env, "KEEP_SOURCE_DAYS", 0, least=0, most=3650)
KEEP_FAILED_DAYS = read.number(env, "KEEP_FAILED_DAYS", 7, least=0, most=3650)
MAX_SOURCE_BYTES = int(read.number(env, "MAX_SOURCE_BYTES", 2 * 1024**3, least=1024, most=1024**4))
DOWNLOAD_TIMEOUT_SECONDS = read.number(env, "DOWNLOAD_TIMEOUT_SECONDS", 900, least=1, most=86400)
TRANSCODE_TIMEOUT_SECONDS = read.number(env, "TRANSCODE_TIMEOUT_SECONDS", 1800, least=1, most=86400)
FFMPEG_BINARY = env.str("FFMPEG_BINARY", default="")
# Transcodes at once on this host; the Procfile starts as many threads.
MEDIA_CONCURRENCY = int(read.number(env, "MEDIA_CONCURRENCY", 2, least=1, most=1024))
# Together they use every core once: more threads than cores only make each transcode cost more.
_threads_each = max(1, (os.cpu_count() or 1) // MEDIA_CONCURRENCY)
FFMPEG_THREADS = int(read.number(env, "FFMPEG_THREADS", _threads_each, least=1, most=64))
# Tasks that may wait for a slot, of one user (unless an operator gave another number) and of all.
MAX_WAITING_PER_USER = int(read.number(env, "MAX_WAITING_PER_USER", 1000, least=1, most=10_000_000))
MAX_WAITING = int(read.number(env, "MAX_WAITING", 100_000, least=1, most=10_000_000))
# A worker with less room than this takes no new downloads; when none has more, nothing new is submitted.
MIN_FREE_BYTES = int(read.number(env, "MIN_FREE_BYTES", 1024**3, least=0, most=1024**5))
PRIVATE_HOSTS_ALLOWED = read.words(env, "PRIVATE_HOSTS_ALLOWED")

# --- storage -------------------------------------------------------------------------------------------------------

STORAGE_LOCAL_PATH = _under_root(env.str("STORAGE_LOCAL_PATH", default="./storage"))
# Unfinished work is always on a local disk; beside local storage, so that publishing never copies.
SCRATCH_PATH = _under_root(env.str("SCRATCH_PATH", default="") or str(STORAGE_LOCAL_PATH / ".scratch"))
LINK_LIFETIME_SECONDS = int(read.number(env, "LINK_LIFETIME_SECONDS", 3600, least=60, most=7 * 86400))


def _object_storage() -> tuple[S3Address | None, S3Address | None]:
    """The bucket of STORAGE_URL, as we see it and as clients do; None: videos are in STORAGE_LOCAL_PATH."""
    url, public = env.str("STORAGE_URL", default=""), env.str("STORAGE_PUBLIC_ENDPOINT", default="")
    if not url:
        if public:
            raise ImproperlyConfigured("STORAGE_PUBLIC_ENDPOINT is set, but STORAGE_URL is not.")
        return None, None
    name = "STORAGE_URL"
    try:
        address = parse(url, region=env.str("AWS_REGION", default="") or env.str("AWS_DEFAULT_REGION", default=""))
        name = "STORAGE_PUBLIC_ENDPOINT"
        public = public and endpoint_of(public)
    except BadAddress as err:
        raise ImproperlyConfigured(f"{name} {err}") from None  # the cause may hold what was typed
    if links.longest_s(LINK_LIFETIME_SECONDS) > s3_links.LONGEST_S:
        raise ImproperlyConfigured("LINK_LIFETIME_SECONDS may be 483840 at most with STORAGE_URL: S3's limit.")
    return address, address.seen_from(public)


def _object_storage_keys() -> S3Keys | None:
    """None: what AWS's library finds by itself, such as the machine's role."""
    key, secret = env.str("AWS_ACCESS_KEY_ID", default=""), env.str("AWS_SECRET_ACCESS_KEY", default="")
    if bool(key) != bool(secret):
        missing, given = ("SECRET_ACCESS_KEY", "ACCESS_KEY_ID") if key else ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY")
        raise ImproperlyConfigured(f"AWS_{missing} is missing beside AWS_{given}.")
    return S3Keys(key, secret, env.str("AWS_SESSION_TOKEN", default="")) if key else None


OBJECT_STORAGE, OBJECT_STORAGE_FOR_CLIENTS = _object_storage()
OBJECT_STORAGE_KEYS = _object_storage_keys() if OBJECT_STORAGE else None

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s %(message)s"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["stderr"], "level": env.str("LOG_LEVEL", default="INFO").upper()},
    "loggers": {"urllib3": {"level": "WARNING"}},
}
