from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('video', '0032_answered_calls'),
    ]

    operations = [
        # A longer limit of a text rewrites no row.
        migrations.AlterField(
            model_name='videotask',
            name='park_reason',
            field=models.CharField(blank=True, default='', max_length=300),
        ),
    ]
