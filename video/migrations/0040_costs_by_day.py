from datetime import UTC

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models
from django.db.models.functions import TruncDate


class Migration(migrations.Migration):
    """Attempts by the day of their end, and entries by their day: the costs of a day are read by them."""

    atomic = False

    dependencies = [("video", "0039_prices")]

    operations = [
        AddIndexConcurrently(
            model_name="creditentry",
            index=models.Index(TruncDate("created_at", tzinfo=UTC), name="entry_by_day"),
        ),
        AddIndexConcurrently(
            model_name="generation",
            index=models.Index(
                TruncDate("ended_at", tzinfo=UTC),
                name="generation_by_day",
                condition=models.Q(("ended_at__isnull", False)),
            ),
        ),
    ]
