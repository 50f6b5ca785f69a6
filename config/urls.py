"""All addresses."""

from django.contrib import admin
from django.urls import URLPattern, URLResolver, include, path

from video.admin.queues import queues_view
from video.web import front_page, health_endpoints, media

urlpatterns: list[URLPattern | URLResolver] = [
    path("", front_page.front_page, name="front-page"),
    path("", include("video.api.urls")),
    path("storage/<path:key>", media.media, name="media"),
    path("healthz", front_page.healthz, name="healthz"),
    path("readyz", health_endpoints.readyz, name="readyz"),
    path("admin/queues/", admin.site.admin_view(queues_view), name="admin-queues"),
    path("admin/", admin.site.urls),
]

# Under /api also these answer with the API's envelope.
handler400 = "video.api.errors.handler400"
handler403 = "video.api.errors.handler403"
handler404 = "video.api.errors.handler404"
handler500 = "video.api.errors.handler500"
