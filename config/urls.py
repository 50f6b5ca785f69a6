"""All addresses."""

from django.contrib import admin
from django.contrib.auth.views import PasswordResetCompleteView
from django.urls import URLPattern, URLResolver, include, path, re_path
from django.views.generic import RedirectView

from video.api.mcp.views import McpView
from video.monitoring.metrics_page import metrics
from video.web import media, pages
from video.web.reset_page import ResetPage
from video.web.versions import versioned

urlpatterns: list[URLPattern | URLResolver] = [
    path("", pages.front_page, name="front-page"),
    path("mcp", McpView.as_view(), name="mcp"),
    # Asked before those of the API, so each of its requests comes by here: one look tells that it is none of these.
    re_path(r"^(?=v1(?:/|\Z)|api/v1/videos(?:/|\Z))", include("video.api.dialects.urls")),
    versioned("video.api.urls"),
    path("", include("video.api.urls")),
    path("storage/<path:key>", media.media, name="media"),
    path("healthz", pages.healthz, name="healthz"),
    path("readyz", pages.readyz, name="readyz"),
    path("admin", RedirectView.as_view(pattern_name="admin:index", query_string=True)),
    path("metrics", metrics, name="metrics"),
    path("admin/", include("video.admin.urls")),
    path("admin/reset/done/", PasswordResetCompleteView.as_view(), name="password_reset_complete"),
    path("admin/reset/<uidb64>/<token>/", ResetPage.as_view(), name="password_reset_confirm"),
    path("admin/", admin.site.urls),
]

# Under /api also these answer with the API's envelope.
handler400 = "video.api.errors.handler400"
handler403 = "video.api.errors.handler403"
handler404 = "video.api.errors.handler404"
handler500 = "video.api.errors.handler500"
