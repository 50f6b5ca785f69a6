"""The price list: what a video costs its user, in credits."""

from __future__ import annotations

from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Q

from video.models.tasks import VideoTask

#: No price is above it: a slip of the hand should not take a user's whole balance.
MOST_CREDITS = 100_000
LONGEST_S = 600


class PriceRule(models.Model):
    """What orders of a kind cost. Of all rules that fit an order the most specific one counts.

    What is empty, or 0 seconds, fits every order. Model is more specific than seconds, seconds than resolution,
    resolution than sound.
    """

    class Sound(models.TextChoices):
        WITH = "with", "with sound"
        SILENT = "silent", "without"

    #: In `model`: orders that name no model, and leave the choice to us.
    NO_MODEL = "none"

    id = models.BigAutoField(primary_key=True)
    model = models.CharField(
        max_length=80, blank=True, default="", help_text="The model that an order names; or orders that name none."
    )
    seconds = models.PositiveSmallIntegerField(
        default=0, validators=[MaxValueValidator(LONGEST_S)], help_text="Length that is ordered; 0: any length."
    )
    resolution = models.CharField(
        max_length=8, choices=VideoTask.Resolution.choices, blank=True, default="", help_text="That is ordered."
    )
    sound = models.CharField(
        max_length=8, choices=Sound.choices, blank=True, default="", help_text="Whether sound is ordered."
    )
    credits = models.PositiveIntegerField(
        default=0, validators=[MaxValueValidator(MOST_CREDITS)], help_text="A video, whole credits."
    )
    credits_per_second = models.DecimalField(
        max_digits=8,
        decimal_places=3,
        default=0,
        validators=[MinValueValidator(0), MaxValueValidator(MOST_CREDITS)],
        help_text="In addition, for each second that is ordered. The sum is rounded up to whole credits.",
    )
    note = models.CharField(max_length=200, blank=True, default="", help_text="For operators.")

    class Meta:
        ordering = ["model", "seconds", "resolution", "sound"]
        constraints = [
            models.UniqueConstraint(
                fields=["model", "seconds", "resolution", "sound"],
                name="price_rule_once",
                violation_error_message="There is a rule for exactly these orders already.",
            ),
            models.CheckConstraint(
                name="price_rule_in_bounds",
                condition=Q(credits__lte=MOST_CREDITS)
                & Q(credits_per_second__gte=0)
                & Q(credits_per_second__lte=MOST_CREDITS),
            ),
            models.CheckConstraint(
                name="price_rule_words_known",
                condition=Q(sound__in=["", "with", "silent"]) & Q(resolution__in=["", *VideoTask.Resolution.values]),
            ),
        ]

    def __str__(self) -> str:
        model = {"": "every model", self.NO_MODEL: "no model named"}.get(self.model, self.model)
        more = [f"{self.seconds} s" if self.seconds else "", self.resolution, self.get_sound_display()]
        return ", ".join([model, *filter(None, more)])
