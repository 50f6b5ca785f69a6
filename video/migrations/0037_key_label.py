from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("video", "0036_console"),
    ]

    operations = [
        migrations.AlterModelOptions(name="generation", options={"verbose_name": "attempt"}),
        migrations.AlterField(
            model_name="provideraccount",
            name="slots",
            field=models.PositiveIntegerField(help_text="Jobs that may be under way at once, as the provider says."),
        ),
        migrations.AddField(
            model_name="providerkey",
            name="label",
            field=models.CharField(
                blank=True,
                db_default="",
                default="",
                help_text="What the settings call it, or called it last: its name, else its place and last four "
                "characters.",
                max_length=80,
            ),
        ),
    ]
