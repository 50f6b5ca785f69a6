from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    """Attempts by their end, and entries by their time: the costs of a day are read by them."""

    atomic = False

    dependencies = [("video", "0039_prices")]

    operations = [
        AddIndexConcurrently(
            model_name="creditentry",
            index=models.Index(fields=["created_at"], name="entry_by_day"),
        ),
        AddIndexConcurrently(
            model_name="generation",
            index=models.Index(
                condition=models.Q(("ended_at__isnull", False)), fields=["ended_at"], name="generation_ended"
            ),
        ),
    ]
