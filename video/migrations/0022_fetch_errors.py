from django.db import migrations, models

# A late video that an older version brought back has no deadline: its fetch would be tried again for ever.
GIVE_DEADLINES = """
UPDATE video_videotask SET deadline_at = statement_timestamp() + interval '1 hour'
WHERE stage = 'download' AND status = 'running' AND finished_at IS NULL AND deadline_at IS NULL
"""


class Migration(migrations.Migration):

    dependencies = [
        ("video", "0020_recovery_codes"),
    ]

    operations = [
        migrations.AddField(
            model_name="generation",
            name="fetch_errors",
            field=models.PositiveIntegerField(
                db_default=0, default=0, help_text="Fetches of its finished video that failed, in a row."
            ),
        ),
        migrations.RunSQL(GIVE_DEADLINES, migrations.RunSQL.noop),
    ]
