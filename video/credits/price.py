"""The price of an order in credits. Create, retry and quote ask here, so that they can't differ."""

from __future__ import annotations

from django.conf import settings

from video.models import VideoTask
from video.models.order import Order


def credits_of(order: Order | VideoTask) -> int:
    """What one run of this order costs its user: the same for all orders, CREDITS_PER_VIDEO (10), and for all renders,
    CREDITS_PER_RENDER (0).
    """
    is_render = isinstance(order, VideoTask) and order.render_of_id is not None
    price: int = settings.CREDITS_PER_RENDER if is_render else settings.CREDITS_PER_VIDEO
    return price
