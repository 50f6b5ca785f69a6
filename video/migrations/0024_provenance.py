from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('video', '0023_fps_of_source'),
    ]

    operations = [
        migrations.AddField(
            model_name='generation',
            name='aigc_tag',
            field=models.TextField(blank=True, db_default='', default='', help_text="What the provider's file says of its origin (China's AIGC tag)."),
        ),
        migrations.AddField(
            model_name='generation',
            name='has_c2pa',
            field=models.BooleanField(db_default=False, default=False, help_text="The provider's file had a C2PA manifest. No transcode can keep one."),
        ),
    ]
