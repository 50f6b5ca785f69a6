
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('video', '0035_audit'),
    ]

    operations = [
        migrations.CreateModel(
            name='HourFigures',
            fields=[
                ('hour', models.DateTimeField(help_text='Its start.', primary_key=True, serialize=False)),
                ('videos', models.PositiveIntegerField(help_text='Tasks that succeeded.')),
                ('failures', models.PositiveIntegerField(help_text='Tasks that failed.')),
                ('waits', models.PositiveIntegerField(help_text='Waits for a slot that ended with one.')),
                ('waited_s', models.FloatField(help_text='The sum of these waits.')),
                ('longest_wait_s', models.FloatField()),
                ('cost_usd', models.JSONField(db_default=models.Value({}, models.JSONField()), default=dict, help_text='Expected USD of the jobs, by provider.')),
            ],
        ),
        migrations.AlterModelOptions(
            name='generation',
            options={'verbose_name': 'attempt'},
        ),
        migrations.AlterModelOptions(
            name='taskevent',
            options={'verbose_name': 'event'},
        ),
    ]
