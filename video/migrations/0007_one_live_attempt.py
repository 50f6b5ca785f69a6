# Dropping the index of a foreign key takes along every index on that column alone that is not among the model's
# `indexes`: with the first form of 0006 went the one behind the constraint that a task has at most one live attempt.
# Databases that have gone through it get it back here.

from django.db import migrations


class Migration(migrations.Migration):

    dependencies = [
        ('video', '0006_fewer_indexes'),
    ]

    operations = [
        migrations.RunSQL(
            """
            CREATE UNIQUE INDEX IF NOT EXISTS generation_one_live_a_task ON video_generation (task_id)
                WHERE state IN ('planned', 'unknown', 'accepted')
            """,
            migrations.RunSQL.noop,
        ),
    ]
