"""Django's admin with our site, which may ask for a second factor."""

from __future__ import annotations

from django.contrib.admin.apps import AdminConfig


class AdminApp(AdminConfig):
    """Listed among the installed apps instead of `django.contrib.admin`."""

    # Not in video.admin: importing that registers pages, for which the site must be there already.
    default_site = "video.web.admin_site.Site"
