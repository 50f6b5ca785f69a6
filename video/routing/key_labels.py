"""What people call a provider's key or account: its label. Pages, commands, log lines and sentences all ask here.

The label is of the settings of this process: the name that the list of keys gives it, else its place in the list and
its last four characters. For a key that is gone from them it is the last that was known, which its row keeps. Rows know
a key by its fingerprint alone, so that a name may change at any time.
"""

from __future__ import annotations

from django.conf import settings
from django.db.models import OuterRef, QuerySet, Subquery

from video.models import Generation, ProviderAccount, ProviderKey

_OF_ROW = "stored_key_label"
MOST_CHARACTERS = 80  # of the column


def of(provider: str, fingerprint: str, stored: str | None = None) -> str:
    """The label of a key. `stored`: that of its row, where the caller has it; else a key that is not in the settings
    costs one statement. A key that was never given one is known by its fingerprint.
    """
    now = configured(provider).get(fingerprint)
    if now is not None:
        return now
    if stored is None:
        rows = ProviderKey.objects.filter(provider=provider, fingerprint=fingerprint)
        stored = rows.values_list("label", flat=True).first()
    return stored or fingerprint


def configured(provider: str) -> dict[str, str]:
    """The labels of a provider's keys in the settings, by fingerprint."""
    return {key.fingerprint: key.label[:MOST_CHARACTERS] for key in settings.PROVIDER_KEYS.get(provider, ())}


def every() -> dict[tuple[str, str], str]:
    """The label of each key that is or was configured here, by provider and fingerprint; one statement."""
    rows = ProviderKey.objects.values_list("provider", "fingerprint", "label")
    found = {(provider, fingerprint): label or fingerprint for provider, fingerprint, label in rows}
    for provider in settings.PROVIDER_KEYS:
        found |= {(provider, fingerprint): label for fingerprint, label in configured(provider).items()}
    return found


def fingerprint_of(word: str) -> str:
    """The fingerprint of the key that is called so; a fingerprint itself stays as it is. At most one statement."""
    for provider in settings.PROVIDER_KEYS:
        for fingerprint, label in configured(provider).items():
            if word in (label, fingerprint):
                return fingerprint
    row = ProviderKey.objects.filter(label=word).values_list("fingerprint", flat=True).first()
    return word if row is None else row


def of_account(provider: str, account: str, stored: str | None = None) -> str:
    """The label of an account: that of KEY_ACCOUNTS, else that of its only key. `stored` as `of` has it."""
    if (provider, account) in {(name, group) for (name, _), group in settings.KEY_ACCOUNTS.items()}:
        return account
    return of(provider, account, stored)


def of_generation(generation: Generation) -> str:
    """The label of the key that an attempt was sent with; "(gone)" with one that is not in the settings any more.

    Costs a statement for such a key, but not with rows of `with_labels`.
    """
    label = of(generation.provider, generation.key_fingerprint, getattr(generation, _OF_ROW, None))
    is_gone = generation.key_fingerprint not in configured(generation.provider) and not generation.simulated
    return f"{label} (gone)" if is_gone else label


def with_labels(generations: QuerySet[Generation]) -> QuerySet[Generation]:
    """The same attempts, so that the labels of their keys cost no statement each."""
    return generations.annotate(**{_OF_ROW: _stored("provider", "key_fingerprint")})


def accounts_with_labels(accounts: QuerySet[ProviderAccount]) -> QuerySet[ProviderAccount]:
    """The same accounts, so that `of_account_row` costs no statement."""
    return accounts.annotate(**{_OF_ROW: _stored("provider", "account")})


def of_account_row(account: ProviderAccount) -> str:
    """The label of an account by its row."""
    return of_account(account.provider, account.account, getattr(account, _OF_ROW, None))


def _stored(provider: str, fingerprint: str) -> Subquery:
    rows = ProviderKey.objects.filter(provider=OuterRef(provider), fingerprint=OuterRef(fingerprint))
    return Subquery(rows.values("label")[:1])
