"""Which keys and accounts the lists show: those in use. Former ones stay in the tables, since attempts name them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.db.models import Q, QuerySet
from django.http import HttpRequest

from video.routing import slots


class FormerFilter(admin.SimpleListFilter):
    """Without a choice: what the settings have, and what jobs hang on. Keys of a simulation are former ones as soon as
    real keys come, and the other way round.

    The model's admin annotates `live`, the jobs of each row.
    """

    title = "in use"
    parameter_name = "former"
    column = ""  # that names the row: of a key or of an account

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("all", "All, former ones too")]

    def choices(self, changelist: ChangeList) -> Iterator[Any]:
        first, *others = super().choices(changelist)
        yield {**first, "display": "In use"}
        yield from others

    def names(self) -> set[tuple[str, str]]:
        """Provider and name of each row that is in use."""
        raise NotImplementedError

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        if self.value() == "all":
            return queryset
        in_use = Q(live__gt=0)
        for provider, name in sorted(self.names()):
            in_use |= Q(provider=provider, **{self.column: name})
        return queryset.filter(in_use)


class FormerKeys(FormerFilter):
    """Keys that are gone from the settings."""

    column = "fingerprint"

    def names(self) -> set[tuple[str, str]]:
        return set(slots.wanted_keys())


class FormerAccounts(FormerFilter):
    """Accounts of which no key is in the settings."""

    column = "account"

    def names(self) -> set[tuple[str, str]]:
        return {(provider, account) for (provider, _), account in slots.wanted_keys().items()}
