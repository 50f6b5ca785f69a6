from django.apps import AppConfig
from django.contrib.postgres.indexes import OpClass
from django.db.models.expressions import OrderBy
from django.db.models.functions import Collate
from django.db.models.indexes import IndexExpression


class VideoConfig(AppConfig):
    name = "video"
    verbose_name = "Video"

    def ready(self) -> None:
        """Register the system checks, and have time-outs read back, logins recorded and roles kept."""
        from video import checks  # noqa: F401 - importing registers them
        from video.infra import timeouts
        from video.web import roles, security_log

        # As the app django.contrib.postgres does, which also asks each new connection for types that are not used here.
        IndexExpression.register_wrappers(OrderBy, OpClass, Collate)
        timeouts.watch()
        security_log.watch()
        roles.watch()
