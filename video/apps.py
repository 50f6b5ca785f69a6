from django.apps import AppConfig


class VideoConfig(AppConfig):
    name = "video"
    verbose_name = "Video"

    def ready(self) -> None:
        """Register the system checks, and have time-outs read back and logins recorded."""
        from video import checks  # noqa: F401 - importing registers them
        from video.infra import timeouts
        from video.web import security_log

        timeouts.watch()
        security_log.watch()
