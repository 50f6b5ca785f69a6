import django.db.models.functions.datetime
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('video', '0046_alerts'),
    ]

    operations = [
        migrations.CreateModel(
            name='ProcessFigures',
            fields=[
                ('name', models.CharField(help_text='host:pid, as in the events.', max_length=120, primary_key=True, serialize=False)),
                ('kind', models.CharField(help_text='web, worker or sweeper.', max_length=8)),
                ('queues', models.CharField(blank=True, default='', help_text='Of a worker, separated by commas.', max_length=100)),
                ('samples', models.BinaryField(help_text='Compressed JSON.')),
                ('written_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
            ],
            options={
                'verbose_name_plural': 'process figures',
                'constraints': [models.CheckConstraint(condition=models.Q(('kind__in', ['web', 'worker', 'sweeper'])), name='figures_kind_known')],
            },
        ),
    ]
