"""Django's own settings that nothing from outside changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from config.console import UNFOLD as UNFOLD

BASE_DIR = Path(__file__).resolve().parent.parent

MIDDLEWARE = [
    "video.web.headers_middleware.HeadersMiddleware",
    "video.web.cors.Cors",
    "video.web.outage_middleware.OutageMiddleware",
    "video.web.strange_requests.StrangeRequestsMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "video.web.pages_only.Sessions",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "video.web.pages_only.Users",
    "video.web.pages_only.SecondFactors",
    "video.web.pages_only.Messages",
]
ROOT_URLCONF = "config.urls"
TEMPLATES: list[dict[str, Any]] = [
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
STATICFILES_DIRS = [BASE_DIR / "static"]
WHITENOISE_USE_FINDERS = True  # no collectstatic step to forget
WHITENOISE_ALLOW_ALL_ORIGINS = False
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator"},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "video.web.security_log.PasswordChanges"},
]
