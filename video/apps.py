from django.apps import AppConfig


class VideoConfig(AppConfig):
    name = "video"
    verbose_name = "Video"

    def ready(self) -> None:
        """Register the system checks."""
        from video import checks  # noqa: F401 - importing registers them
