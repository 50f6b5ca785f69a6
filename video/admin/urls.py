"""Addresses of the admin's pages that show no model's rows, beneath /admin/."""

from __future__ import annotations

from django.contrib import admin
from django.urls import path

from video.admin.costs import costs_view
from video.admin.failures import failures_view
from video.admin.home import home_view
from video.admin.queues import queues_view
from video.admin.remedies import remedy_view

urlpatterns = [
    path("", admin.site.admin_view(home_view), name="admin-home"),
    path("costs/", admin.site.admin_view(costs_view), name="admin-costs"),
    path("queues/", admin.site.admin_view(queues_view), name="admin-queues"),
    path("failures/", admin.site.admin_view(failures_view), name="admin-failures"),
    path("remedies/", admin.site.admin_view(remedy_view), name="admin-remedy"),
]
