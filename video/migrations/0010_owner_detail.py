from django.db import migrations, models

# What the owner could read of an event before, by its words. Rows that say nothing to owners are not written.
OWNER_DETAILS = """
UPDATE video_taskevent e SET owner_detail = left(found.words, 300)
FROM (
    SELECT e.id, CASE
        WHEN e.worker LIKE 'operator %' THEN 'an operator saw to it'
        WHEN e.outcome IN ('cancelled', 'resumed') THEN regexp_replace(e.detail, ' by [^;]*', '', 'g')
        WHEN e.outcome IN ('created', 'admitted', 'advanced', 'succeeded')
            OR e.detail ~ '^(runway|pika|kling): [a-z_ -]{1,40}$' THEN e.detail
        WHEN e.outcome = 'failed' AND e.run = t.run THEN t.error_message
        ELSE '' END AS words
    FROM video_taskevent e JOIN video_videotask t ON t.id = e.task_id
) found
WHERE found.id = e.id AND found.words <> ''
"""


class Migration(migrations.Migration):

    dependencies = [
        ('video', '0009_dead_workers'),
    ]

    operations = [
        migrations.AddField(
            model_name='taskevent',
            name='owner_detail',
            field=models.CharField(blank=True, db_default='', default='', help_text='All that the owner of the task may read of it; empty: nothing.', max_length=300),
        ),
        migrations.AddField(
            model_name='workersign',
            name='pid',
            field=models.IntegerField(blank=True, help_text='Of its process; unknown for workers of an older version.', null=True),
        ),
        migrations.AddField(
            model_name='videotask',
            name='park_code',
            field=models.CharField(blank=True, db_default='', default='', help_text='Cause of a wait that may repeat itself.', max_length=60),
        ),
        migrations.RunSQL(OWNER_DETAILS, migrations.RunSQL.noop),
    ]
