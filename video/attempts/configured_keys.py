"""The rows of the configured keys: made, moved to another account, marked as gone. A key's live attempts move with it.

Beside the attempts, since only `video.attempts` writes them; what the rows say is read in `video.routing`.
"""

from __future__ import annotations

import logging

from django.conf import settings
from django.db import connection, transaction

from video.models import Circuit, Generation, ProviderKey
from video.routing import accounts, health, key_labels, refusals, slots
from video.routing.slots import Slots

log = logging.getLogger(__name__)


def open_slots() -> Slots:
    """Every open account with its free slots, locked until the transaction ends; call it inside one.

    Missing rows are made first. All callers lock in the order of ids, so two of them wait instead of deadlocking.
    """
    found = slots.lock_all()
    if found is None:
        sync()
        found = slots.lock_all()
    assert found is not None
    return found


def refresh(max_age_s: float | None) -> int:
    """Make missing rows, log again which keys are gone, and ask about every key whose last answer is too old.

    Returns how many answered; never raises. `max_age_s`: of an answer; None: only refused keys are asked about. Takes
    some 10 seconds at the very most.
    """
    try:
        sync()
        remind_of_gone()
        return accounts.refresh(max_age_s)
    except Exception as err:
        log.warning("accounts could not be checked: %s", type(err).__name__)
        return 0


def sync() -> None:
    """Make the rows of every configured key and model, and notice keys that went and came back. Idempotent.

    A key that is gone while jobs depend on it is marked and logged as an error, once. A key that moved to another
    account takes its live generations along, so that they go on counting against the right limit.
    """
    wanted = slots.wanted_keys()
    with transaction.atomic():
        # Always accounts before keys, and all of them: two callers wait instead of deadlocking.
        slots.accounts_locked()
        _insert_accounts(wanted)
        slots.accounts_locked()
        _insert_keys(wanted)
        keys = {(key.provider, key.fingerprint): key for key in ProviderKey.objects.order_by("id").select_for_update()}
        _forget_what_changed(keys, wanted)
        for (provider, fingerprint), account in wanted.items():
            key = keys[provider, fingerprint]
            if key.account != account:
                _move_attempts(provider, fingerprint, account)
                ProviderKey.objects.filter(pk=key.pk).update(account=account)
                log.warning(
                    '%s: key "%s" belongs to account "%s" now, not "%s"',
                    provider,
                    key_labels.of(provider, fingerprint),
                    key_labels.of_account(provider, account),
                    key_labels.of_account(provider, key.account),
                )
            if key.gone_since is not None:
                ProviderKey.objects.filter(pk=key.pk).update(gone_since=None)
                log.warning('%s: key "%s" is back; its jobs go on', provider, key_labels.of(provider, fingerprint))
        _write_labels(keys, wanted)
        _mark_gone([key for name, key in keys.items() if name not in wanted])


def _forget_what_changed(keys: dict[tuple[str, str], ProviderKey], wanted: slots.Wanted) -> None:
    """Take a new key, another account or another address of a provider as new: what the old one was told is forgotten.

    Keys whose address was never noted (rows of an older version) only get it.
    """
    changed_accounts: set[tuple[str, str]] = set()
    moved = _replaced(keys, wanted)  # providers with another address
    for (provider, fingerprint), account in sorted(wanted.items()):
        key, base_url = keys[provider, fingerprint], slots.base_url(provider)
        is_new = not key.base_url and key.checked_at is None and not key.refusals
        if key.base_url not in {"", base_url}:
            moved.add(provider)
        if is_new or key.account != account or provider in moved:
            changed_accounts.add((provider, account))
        if key.base_url != base_url:
            ProviderKey.objects.filter(pk=key.pk).update(base_url=base_url)
    for provider in sorted(moved):
        mine = ProviderKey.objects.filter(provider=provider, fingerprint__in=[name for _, name in wanted])
        mine.filter(state=ProviderKey.State.QUARANTINED).update(state=ProviderKey.State.ACTIVE)
        mine.update(**refusals.NOTHING_KNOWN, last_error="")
        Circuit.objects.filter(provider=provider).update(**health.CLOSED)
        log.warning(
            "%s: its address is %s now; what was concluded from the old one is forgotten",
            provider,
            slots.base_url(provider),
        )
    for provider, account in sorted(changed_accounts):
        accounts.forget(provider, account)


def _replaced(keys: dict[tuple[str, str], ProviderKey], wanted: slots.Wanted) -> set[str]:
    """Providers whose keys were all at another address until now: a simulation's keys, where the real ones come, or the
    other way round. The former keys' address is forgotten, so that the way back is noticed, too.
    """
    found = set()
    for provider in sorted({name for name, _ in wanted}):
        address = slots.base_url(provider)
        mine = {name: key for name, key in keys.items() if name[0] == provider}
        former = [key for name, key in mine.items() if name not in wanted and key.base_url not in {"", address}]
        if former and not any(key.base_url == address for name, key in mine.items() if name in wanted):
            found.add(provider)
        ProviderKey.objects.filter(pk__in=[key.pk for key in former]).update(base_url="")
    return found


def remind_of_gone() -> int:
    """Log again which keys are gone while jobs depend on them. Returns how many."""
    gone = list(ProviderKey.objects.filter(gone_since__isnull=False).order_by("id"))
    for key in gone:
        log.error(
            '%s: key "%s" is still gone (since %s) while jobs hang on it: put it back into %s_API_KEY',
            key.provider,
            key_labels.of(key.provider, key.fingerprint, key.label),
            f"{key.gone_since:%Y-%m-%d %H:%M} UTC",
            key.provider.upper(),
        )
    return len(gone)


def _insert_accounts(wanted: slots.Wanted) -> None:
    accounts = slots.accounts_of(wanted)
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO video_provideraccount
                (provider, account, model, slots, busies, closed_reason, balance_unit, last_error)
            SELECT provider, account, model, %s, 0, '', '', ''
            FROM unnest(%s::text[], %s::text[], %s::text[]) AS w (provider, account, model)
            ORDER BY provider, account, model ON CONFLICT (provider, account, model) DO NOTHING
            """,
            [settings.SLOTS_PER_KEY, *([row[column] for row in accounts] for column in range(3))],
        )


def _insert_keys(wanted: slots.Wanted) -> None:
    keys = sorted((provider, fingerprint, account) for (provider, fingerprint), account in wanted.items())
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO video_providerkey (provider, fingerprint, account, state, last_error)
            SELECT provider, fingerprint, account, 'active', ''
            FROM unnest(%s::text[], %s::text[], %s::text[]) AS w (provider, fingerprint, account)
            ORDER BY provider, fingerprint ON CONFLICT (provider, fingerprint) DO NOTHING
            """,
            [[row[column] for row in keys] for column in range(3)],
        )


def _write_labels(keys: dict[tuple[str, str], ProviderKey], wanted: slots.Wanted) -> None:
    """What the settings call each key, for the time when it is gone from them."""
    for provider, fingerprint in wanted:
        key, label = keys[provider, fingerprint], key_labels.of(provider, fingerprint)
        if key.label != label:
            ProviderKey.objects.filter(pk=key.pk).update(label=label)


def _move_attempts(provider: str, fingerprint: str, account: str) -> None:
    """The key's live generations hold slots of its new account from now on."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            UPDATE video_generation g SET account_id = new.id
            FROM video_provideraccount old, video_provideraccount new
            WHERE g.provider = %(provider)s AND g.key_fingerprint = %(fingerprint)s
                AND g.state {Generation.LIVE_SQL} AND old.id = g.account_id
                AND new.provider = old.provider AND new.model = old.model AND new.account = %(account)s
            """,  # noqa: S608 - a constant
            {"provider": provider, "fingerprint": fingerprint, "account": account},
        )


def _mark_gone(missing: list[ProviderKey]) -> None:
    """Of the keys that are not configured, mark those that jobs depend on; clear the others' marks."""
    if not missing:
        return
    live = slots.live_by_key()
    for key in missing:
        jobs = live.get((key.provider, key.fingerprint), 0)
        if jobs and key.gone_since is None:
            with connection.cursor() as cursor:
                cursor.execute(
                    "UPDATE video_providerkey SET gone_since = statement_timestamp() WHERE id = %s", [key.pk]
                )
            log.error(
                '%s: key "%s" is gone from %s_API_KEY while %d job%s on it: put it back, or they end at their deadline',
                key.provider,
                key_labels.of(key.provider, key.fingerprint, key.label),
                key.provider.upper(),
                jobs,
                " hangs" if jobs == 1 else "s hang",
            )
        elif not jobs and key.gone_since is not None:
            ProviderKey.objects.filter(pk=key.pk).update(gone_since=None)
