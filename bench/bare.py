"""The least that a Django REST view with a token can be: JWT checked, one indexed query, no middleware.

Behind the same front and server, with the same settings of the database as the product's.
"""

from __future__ import annotations

import os
from typing import Any

os.environ["DJANGO_SETTINGS_MODULE"] = "bench.bare_settings"

from django.core.wsgi import get_wsgi_application

from video.web.front.server import Front

application = Front(get_wsgi_application(), threads=16)

from django.db import connection  # noqa: E402
from django.http import HttpRequest, HttpResponse  # noqa: E402
from django.urls import path  # noqa: E402
from rest_framework.request import Request  # noqa: E402
from rest_framework.response import Response  # noqa: E402
from rest_framework.views import APIView  # noqa: E402
from rest_framework_simplejwt.authentication import (  # noqa: E402
    JWTAuthentication,
    JWTStatelessUserAuthentication,
)


class OneQuery(APIView):
    """The user's id is in the token; one row by primary key."""

    authentication_classes = (JWTStatelessUserAuthentication,)

    def get(self, request: Request) -> Response:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT status, progress, stage FROM video_videotask WHERE id = %s", [request.GET.get("taskId", "")]
            )
            row: tuple[Any, ...] = cursor.fetchone() or ("", 0, "")
        return Response({"success": True, "data": {"status": row[0], "progress": row[1], "stage": row[2]}})


class TwoQueries(OneQuery):
    """The user is looked up too, as the library does by default and as a service that can lock users out must."""

    authentication_classes = (JWTAuthentication,)


def healthz(request: HttpRequest) -> HttpResponse:
    """It answers."""
    return HttpResponse("ok")


urlpatterns = [
    path("one", OneQuery.as_view()),
    path("two", TwoQueries.as_view()),
    path("healthz", healthz),
]
