from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    # Built beside the work that goes on: no write waits for an index.
    atomic = False

    dependencies = [
        ('video', '0040_costs_by_day'),
    ]

    operations = [
        AddIndexConcurrently(
            model_name='generation',
            index=models.Index(fields=['provider', 'model', 'task'], name='generation_by_model'),
        ),
        AddIndexConcurrently(
            model_name='videotask',
            index=models.Index(condition=models.Q(('finished_at__isnull', False)), fields=['finished_at'], include=('status', 'error_code'), name='task_by_end'),
        ),
        AddIndexConcurrently(
            model_name='videotask',
            index=models.Index(condition=models.Q(('error_code', ''), _negated=True), fields=['error_code', '-id'], name='task_by_error'),
        ),
    ]
