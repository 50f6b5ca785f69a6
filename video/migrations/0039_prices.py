import django.core.validators
from django.db import migrations, models


class Migration(migrations.Migration):
    """The price list in credits, and what each task was priced at."""

    dependencies = [("video", "0038_costs")]

    operations = [
        migrations.CreateModel(
            name="PriceRule",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                (
                    "model",
                    models.CharField(
                        blank=True,
                        default="",
                        help_text="The model that an order names; or orders that name none.",
                        max_length=80,
                    ),
                ),
                ("seconds", models.PositiveSmallIntegerField(default=0, help_text="Length that is ordered; 0: any length.", validators=[django.core.validators.MaxValueValidator(600)])),
                (
                    "resolution",
                    models.CharField(
                        blank=True,
                        choices=[("480p", "P480"), ("720p", "P720"), ("1080p", "P1080"), ("source", "Source")],
                        default="",
                        help_text="That is ordered.",
                        max_length=8,
                    ),
                ),
                (
                    "sound",
                    models.CharField(
                        blank=True,
                        choices=[("with", "with sound"), ("silent", "without")],
                        default="",
                        help_text="Whether sound is ordered.",
                        max_length=8,
                    ),
                ),
                (
                    "credits",
                    models.PositiveIntegerField(
                        default=0,
                        help_text="A video, whole credits.",
                        validators=[django.core.validators.MaxValueValidator(100000)],
                    ),
                ),
                (
                    "credits_per_second",
                    models.DecimalField(
                        decimal_places=3,
                        default=0,
                        help_text="In addition, for each second that is ordered. The sum is rounded up to whole credits.",
                        max_digits=8,
                        validators=[
                            django.core.validators.MinValueValidator(0),
                            django.core.validators.MaxValueValidator(100000),
                        ],
                    ),
                ),
                ("note", models.CharField(blank=True, default="", help_text="For operators.", max_length=200)),
            ],
            options={
                "ordering": ["model", "seconds", "resolution", "sound"],
            },
        ),
        migrations.AddField(
            model_name="videotask",
            name="price_credits",
            field=models.PositiveIntegerField(
                blank=True,
                editable=False,
                help_text="What its run was priced at, in credits; empty: made by an older version.",
                null=True,
            ),
        ),
        migrations.AddConstraint(
            model_name="pricerule",
            constraint=models.UniqueConstraint(
                fields=("model", "seconds", "resolution", "sound"),
                name="price_rule_once",
                violation_error_message="There is a rule for exactly these orders already.",
            ),
        ),
        migrations.AddConstraint(
            model_name="pricerule",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("credits__lte", 100000), ("credits_per_second__gte", 0), ("credits_per_second__lte", 100000)
                ),
                name="price_rule_in_bounds",
            ),
        ),
        migrations.AddConstraint(
            model_name="pricerule",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("sound__in", ["", "with", "silent"]), ("resolution__in", ["", "480p", "720p", "1080p", "source"])
                ),
                name="price_rule_words_known",
            ),
        ),
    ]
