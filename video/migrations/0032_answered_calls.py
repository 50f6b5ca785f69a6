
import django.db.models.deletion
import django.db.models.functions.datetime
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('video', '0031_metadata_and_facts'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name='AnsweredCall',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('call', models.CharField(help_text='Name of its address.', max_length=40)),
                ('key', models.CharField(max_length=255)),
                ('request_hash', models.CharField(help_text='Of what was asked, keyed: it proves no guess of it.', max_length=64)),
                ('status', models.PositiveSmallIntegerField(help_text='Of HTTP.')),
                ('answer', models.TextField(help_text='The body.')),
                ('answered_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ('expires_at', models.DateTimeField(help_text='From then on the key is free.')),
                ('user', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='+', to=settings.AUTH_USER_MODEL)),
            ],
            options={
                'verbose_name': 'answered call',
                'indexes': [models.Index(fields=['expires_at'], name='call_to_sweep')],
                'constraints': [models.UniqueConstraint(fields=('user', 'call', 'key'), name='call_answered_once'), models.CheckConstraint(condition=models.Q(('status__range', (200, 299))), name='call_succeeded'), models.CheckConstraint(condition=models.Q(('expires_at__gt', models.F('answered_at'))), name='call_expires_after_its_answer')],
            },
        ),
    ]
