from django.apps import AppConfig


class VideoConfig(AppConfig):
    name = "video"
    verbose_name = "Video"

    def ready(self) -> None:
        """Register the system checks, and have the database's time-outs read back."""
        from video import checks  # noqa: F401 - importing registers them
        from video.infra import timeouts

        timeouts.watch()
