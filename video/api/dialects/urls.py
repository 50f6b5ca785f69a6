"""Addresses of the dialects. Before those of the API, which answers everything else under /api."""

from django.urls import path, re_path

from video.api.dialects import openai, openrouter

urlpatterns = [
    path("v1/videos", openai.VideosView.as_view(), name="openai-videos"),
    path("v1/videos/<str:task_id>", openai.VideoView.as_view(), name="openai-video"),
    path("v1/videos/<str:task_id>/content", openai.ContentView.as_view(), name="openai-content"),
    re_path(r"^v1(?:/.*)?\Z", openai.UnknownView.as_view()),
    path("api/v1/videos", openrouter.VideosView.as_view(), name="openrouter-videos"),
    path("api/v1/videos/models", openrouter.ModelsView.as_view(), name="openrouter-models"),
    path("api/v1/videos/<str:task_id>", openrouter.VideoView.as_view(), name="openrouter-video"),
    path("api/v1/videos/<str:task_id>/content", openrouter.ContentView.as_view(), name="openrouter-content"),
    re_path(r"^api/v1/videos/.*\Z", openrouter.UnknownView.as_view()),
]
