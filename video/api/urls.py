"""Addresses under /api: no trailing slash (but for call-backs), and an envelope for those that don't exist."""

from django.urls import path, re_path

from video.api.base import UnknownAddress
from video.api.views.auth import LoginView, LogoutView, PasswordView, RefreshView
from video.api.views.batch import BatchView
from video.api.views.cancel_retry import CancelView, RetryView
from video.api.views.events import EventsView
from video.api.views.keys import KeyRollView, KeysView, KeyView
from video.api.views.lists import CreditsView, TasksView
from video.api.views.models import ModelsView, QuoteView
from video.api.views.pauses import PausesView, PauseView
from video.api.views.people import AccountView, ResetConfirmView, ResetView, SignUpView
from video.api.views.queues import QueuesView, TaskView
from video.api.views.render import RenderView
from video.api.views.schema import DocsView, SchemaView
from video.api.views.sessions import SessionsView, SessionView
from video.api.views.tasks import OwnTaskView, StorageView
from video.api.views.upload import UploadView
from video.api.views.usage import UsageView
from video.api.views.video import CreateView, StatusView
from video.api.views.webhook import WebhookView
from video.api.views.webhooks import DeliveriesView, DeliveryView, EndpointsView, EndpointView, ResendView, SecretView

urlpatterns = [
    path("api/video/create", CreateView.as_view(), name="api-create"),
    path("api/video/batch", BatchView.as_view(), name="api-batch"),
    path("api/video/status", StatusView.as_view(), name="api-status"),
    path("api/video/events", EventsView.as_view(), name="api-events"),
    path("api/video/cancel", CancelView.as_view(), name="api-cancel"),
    path("api/video/retry", RetryView.as_view(), name="api-retry"),
    path("api/video/render", RenderView.as_view(), name="api-render"),
    path("api/video/quote", QuoteView.as_view(), name="api-quote"),
    path("api/video/upload", UploadView.as_view(), name="api-upload"),
    path("api/models", ModelsView.as_view(), name="api-models"),
    path("api/video/tasks", TasksView.as_view(), name="api-tasks"),
    path("api/video/tasks/<str:task_id>", OwnTaskView.as_view(), name="api-own-task"),
    path("api/storage", StorageView.as_view(), name="api-storage"),
    path("api/credits", CreditsView.as_view(), name="api-credits"),
    path("api/usage", UsageView.as_view(), name="api-usage"),
    path("api/queues/status", QueuesView.as_view(), name="api-queues"),
    path("api/queues/tasks/<str:task_id>", TaskView.as_view(), name="api-queues-task"),
    path("api/webhooks", EndpointsView.as_view(), name="api-hooks"),
    path("api/webhooks/secret", SecretView.as_view(), name="api-hooks-secret"),
    path("api/webhooks/deliveries", DeliveriesView.as_view(), name="api-hooks-deliveries"),
    path("api/webhooks/deliveries/<str:delivery_id>", DeliveryView.as_view(), name="api-hooks-delivery"),
    path("api/webhooks/deliveries/<str:delivery_id>/resend", ResendView.as_view(), name="api-hooks-resend"),
    path("api/webhooks/<str:endpoint_id>", EndpointView.as_view(), name="api-hooks-endpoint"),
    path("api/webhooks/<str:endpoint_id>/secret", SecretView.as_view(), name="api-hooks-endpoint-secret"),
    # Somebody else was told these two, so they may end in a slash.
    re_path(r"^api/video/webhook/?\Z", WebhookView.as_view(), name="api-webhook-of-any"),
    re_path(r"^api/video/webhook/(?P<provider>[^/]+)/?\Z", WebhookView.as_view(), name="api-webhook"),
    path("api/auth/login", LoginView.as_view(), name="api-login"),
    path("api/auth/refresh", RefreshView.as_view(), name="api-refresh"),
    path("api/auth/logout", LogoutView.as_view(), name="api-logout"),
    path("api/auth/password", PasswordView.as_view(), name="api-password"),
    path("api/auth/sign-up", SignUpView.as_view(), name="api-sign-up"),
    path("api/auth/password-reset", ResetView.as_view(), name="api-password-reset"),
    path("api/auth/password-reset/confirm", ResetConfirmView.as_view(), name="api-password-reset-confirm"),
    path("api/account", AccountView.as_view(), name="api-account"),
    path("api/auth/sessions", SessionsView.as_view(), name="api-sessions"),
    path("api/auth/sessions/<str:session_id>", SessionView.as_view(), name="api-session"),
    path("api/keys", KeysView.as_view(), name="api-keys"),
    path("api/keys/<str:key_id>", KeyView.as_view(), name="api-key"),
    path("api/keys/<str:key_id>/roll", KeyRollView.as_view(), name="api-key-roll"),
    path("api/pauses", PausesView.as_view(), name="api-pauses"),
    path("api/pauses/<str:pause_id>", PauseView.as_view(), name="api-pause"),
    path("api/docs", DocsView.as_view(), name="api-docs"),
    path("api/schema", SchemaView.as_view(), name="api-schema"),
    # Last: new addresses go above.
    re_path(r"^api(?:/.*)?\Z", UnknownAddress.as_view()),
]
