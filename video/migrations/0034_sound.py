from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('video', '0033_park_reason'),
    ]

    operations = [
        migrations.AddField(
            model_name='videotask',
            name='sound',
            field=models.BooleanField(blank=True, help_text='With sound, or without any; empty: silent where the model can be told.', null=True),
        ),
    ]
