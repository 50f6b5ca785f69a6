"""Every column that holds a text or a number says how it is kept clean: a new one has to, here."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

from tests.hostile import columns

ROOT = Path(__file__).resolve().parents[3]

#: Made or counted by us: ids, states, counts, fingerprints, names of the catalogue and the settings.
OURS = "made by us"
#: What cleans or checks it, as `module:function` of the place where it is called, or that calls it.
_STORABLE_MOVES = ("video/engine/transitions.py:storable", "video/engine/claims.py:storable")
_ORDER = "video/actions/order_input.py:CreateSerializer"
_BASE = "providers/contract.py:_bounded"
_JOB = "providers/contract.py:_with_id"

CLEANED: dict[str, str | tuple[str, ...]] = {
    "FailureText.id": OURS,
    "FailureText.provider": OURS,
    "FailureText.signature": "video/attempts/failure_texts.py:safe_text",
    "FailureText.sample": "video/attempts/failure_texts.py:safe_text",
    "FailureText.model": OURS,
    "FailureText.last_task": OURS,
    "FailureText.count": OURS,
    "FailureText.meaning": "video/attempts/failure_texts.py:decide",
    "FailureText.decided_by": "video/attempts/failure_texts.py:storable",
    "ProviderKey.id": OURS,
    "ProviderKey.refusals": OURS,
    "ProviderKey.refused_task": OURS,
    "ProviderKey.provider": OURS,
    "ProviderKey.fingerprint": OURS,
    "ProviderKey.account": "providers/api_keys.py:parse_key_accounts",
    "ProviderKey.state": OURS,
    "ProviderKey.base_url": "config/web_addresses.py:provider_base",
    "ProviderKey.last_error": ("video/routing/accounts.py:storable", "video/routing/refusals.py:storable"),
    "ProviderAccount.id": OURS,
    "ProviderAccount.refusals": OURS,
    "ProviderAccount.refused_task": OURS,
    "ProviderAccount.provider": OURS,
    "ProviderAccount.account": "providers/api_keys.py:parse_key_accounts",
    "ProviderAccount.model": OURS,
    "ProviderAccount.slots": "video/routing/accounts.py:MOST_SLOTS",
    "ProviderAccount.slots_override": "video/admin/accounts.py:ProviderAccountAdmin",
    "ProviderAccount.lowered_slots": OURS,
    "ProviderAccount.busies": OURS,
    "ProviderAccount.closed_reason": OURS,
    "ProviderAccount.balance": "video/routing/accounts.py:LARGEST_BALANCE",
    "ProviderAccount.balance_unit": OURS,
    "ProviderAccount.last_error": ("video/routing/accounts.py:storable", "video/routing/refusals.py:storable"),
    "ModelSetting.model": "video/admin/accounts.py:ModelSettingForm",
    "ModelSetting.price_usd_per_s": "video/admin/accounts.py:clean_price_usd_per_s",
    "ModelSetting.quality": "video/admin/accounts.py:ModelSettingForm",
    "ModelSetting.speed": "video/admin/accounts.py:ModelSettingForm",
    "ModelSetting.note": "video/admin/read_only.py:storable",
    "Circuit.model": OURS,
    "Circuit.provider": OURS,
    "Circuit.faults": OURS,
    "Circuit.fault_users": OURS,
    "Circuit.probing_users": OURS,
    "Circuit.last_error": "video/routing/health.py:storable",
    "VideoTask.id": OURS,
    "VideoTask.run": OURS,
    "VideoTask.prompt": "video/actions/order_input.py:Text",
    "VideoTask.duration_s": _ORDER,
    "VideoTask.aspect_ratio": _ORDER,
    "VideoTask.image_url": "video/actions/order_input.py:as_sent",
    "VideoTask.policy": _ORDER,
    "VideoTask.model_requested": "video/actions/order_input.py:_models",
    "VideoTask.eligible_models": OURS,
    "VideoTask.negative_prompt": "video/actions/order_input.py:Text",
    "VideoTask.seed": "video/actions/order_input.py:LARGEST_SEED",
    "VideoTask.quality": _ORDER,
    "VideoTask.resolution": _ORDER,
    "VideoTask.fps": _ORDER,
    "VideoTask.expires_in_s": "video/actions/order_input.py:validate_expiresIn",
    "VideoTask.priority": ("video/admin/shares.py:priority_from", "video/management/commands/generate.py:Command"),
    "VideoTask.metadata": "video/actions/order_input.py:Metadata",
    "VideoTask.idempotency_key": "video/api/views/video.py:_idempotency_key",
    "VideoTask.request_hash": OURS,
    "VideoTask.status": OURS,
    "VideoTask.stage": OURS,
    "VideoTask.progress": "video/pipeline/media_stages.py:safe_share",
    "VideoTask.fence": OURS,
    "VideoTask.claimed_by": OURS,
    "VideoTask.park_reason": _STORABLE_MOVES,
    "VideoTask.park_code": _STORABLE_MOVES,
    "VideoTask.tries": OURS,
    "VideoTask.deaths": OURS,
    "VideoTask.error_code": _STORABLE_MOVES,
    "VideoTask.error_message": _STORABLE_MOVES,
    "VideoTask.source_key": "media_pipeline/storage/object_keys.py:work_key",
    "VideoTask.output_key": "media_pipeline/storage/object_keys.py:video_key",
    "VideoTask.thumbnail_key": "media_pipeline/storage/object_keys.py:thumbnail_key",
    "VideoTask.video_id": OURS,
    "VideoTask.video_bytes": "media_pipeline/encode/probe.py:ProbeLimits",
    "VideoTask.video_width_px": "media_pipeline/encode/probe.py:ProbeLimits",
    "VideoTask.video_height_px": "media_pipeline/encode/probe.py:ProbeLimits",
    "VideoTask.video_duration_s": "media_pipeline/encode/probe.py:ProbeLimits",
    "VideoTask.video_fps": "media_pipeline/encode/probe.py:ProbeLimits",
    "VideoTask.thumbnail_bytes": OURS,
    "VideoTask.original_bytes": OURS,
    "VideoTask.warnings": "media_pipeline/warnings.py:as_rows",
    "VideoTask.fetched_again_of": OURS,
    "VideoTask.gone_why": OURS,
    "TaskEvent.id": OURS,
    "TaskEvent.run": OURS,
    "TaskEvent.stage": OURS,
    "TaskEvent.outcome": OURS,
    "TaskEvent.fence": OURS,
    "TaskEvent.worker": ("video/actions/task_rows.py:storable", "video/attempts/unsettled.py:storable"),
    "TaskEvent.detail": (*_STORABLE_MOVES, "video/actions/task_rows.py:storable"),
    "TaskEvent.owner_detail": (*_STORABLE_MOVES, "video/actions/task_rows.py:storable"),
    "TaskEvent.error_code": _STORABLE_MOVES,
    "Generation.id": OURS,
    "Generation.run": OURS,
    "Generation.attempt": OURS,
    "Generation.provider": OURS,
    "Generation.model": OURS,
    "Generation.key_fingerprint": OURS,
    "Generation.duration_s": _ORDER,
    "Generation.resolution": OURS,
    "Generation.state": OURS,
    "Generation.candidates": OURS,
    "Generation.job_id": _JOB,
    "Generation.job_urls": _JOB,
    "Generation.provider_status": (_BASE, "video/attempts/poll_records.py:storable"),
    "Generation.provider_progress": (_BASE, "video/attempts/poll_records.py:safe_share"),
    "Generation.polls": OURS,
    "Generation.poll_errors": OURS,
    "Generation.not_found": OURS,
    "Generation.lookups": OURS,
    "Generation.expected_usd": "video/scheduling/admission.py:LARGEST_USD",
    "Generation.expected_cost": _JOB,
    "Generation.reported_cost": _BASE,
    "Generation.cost_unit": OURS,
    "Generation.error_code": "video/attempts/records.py:storable",
    "Generation.error_message": "video/attempts/records.py:storable",
    "Generation.fetch_errors": OURS,
    "Generation.aigc_tag": "media_pipeline/encode/provenance.py:aigc_tag",
    "AttachRequest.job_id": "video/attempts/unsettled.py:clean_job_id",
    "AttachRequest.asked_by": "video/attempts/attach_requests.py:storable",
    "AttachRequest.refusal": "video/attempts/attach_requests.py:storable",
    "Upload.id": OURS,
    "Upload.name": "video/web/uploads.py:_name_of",
    "Upload.key": "media_pipeline/storage/object_keys.py:upload_key",
    "Upload.media_type": "media_pipeline/pictures/headers.py:kind_of",
    "Upload.size_bytes": "video/web/uploads.py:keep",
    "Upload.width_px": "media_pipeline/pictures/headers.py:size_of",
    "Upload.height_px": "media_pipeline/pictures/headers.py:size_of",
    "UserErasure.asked_by": "video/actions/erase_user.py:storable",
    "UserShare.most_stored_bytes": "video/admin/shares.py:UserShareAdmin",
    "UserStorage.bytes": OURS,
    "UserStorage.videos": OURS,
    "LoginSession.id": OURS,
    "LoginSession.address": "video/web/client_address.py:_read",
    "LoginSession.user_agent": "video/web/logins/sessions.py:storable",
    "LoginSession.refresh_id": OURS,
    "LoginSession.exchanged_id": OURS,
    "LoginSession.end_reason": OURS,
    "LoginThrottle.key": OURS,
    "LoginThrottle.level": OURS,
    "ApiKey.id": OURS,
    "ApiKey.name": "video/web/logins/api_keys.py:storable",
    "ApiKey.scopes": "video/api/bodies.py:OneOf",
    "ApiKey.addresses": "video/web/logins/api_keys.py:network",
    "ApiKey.daily_credits": "video/api/bodies.py:KeySerializer",
    "ApiKey.requests_per_minute": "video/api/bodies.py:KeySerializer",
    "ApiKey.spent_credits": OURS,
    "ApiKey.spent_on": OURS,
    "ApiKey.end_reason": OURS,
    "ApiKeySecret.digest": OURS,
    "ApiKeySecret.hint": OURS,
    "RequestWindow.subject": OURS,
    "RequestWindow.most": OURS,
    "RequestWindow.granted": OURS,
    "RequestWindow.last_grant": OURS,
    "RecoveryCode.id": OURS,
    "RecoveryCode.digest": OURS,
    "Account.balance": OURS,
    "CreditEntry.id": OURS,
    "CreditEntry.kind": OURS,
    "CreditEntry.amount": ("video/admin/money.py:GrantForm", "video/management/commands/grant_credits.py:positive"),
    "CreditEntry.run": OURS,
    "CreditEntry.note": "video/credits/ledger.py:storable",
    "PeriodicRun.id": OURS,
    "PeriodicRun.name": OURS,
    "UserShare.weight": "video/admin/shares.py:UserShareForm",
    "UserShare.requests_per_minute": "video/admin/shares.py:UserShareForm",
    "UserShare.most_waiting": "video/admin/shares.py:UserShareForm",
    "UserShare.note": "video/admin/read_only.py:storable",
    "UserUsage.id": OURS,
    "UserUsage.resource": OURS,
    "UserUsage.amount": OURS,
    "WorkerSign.name": OURS,
    "WorkerSign.kind": OURS,
    "WorkerSign.host": OURS,
    "WorkerSign.queues": OURS,
    "WorkerSign.threads": OURS,
    "WorkerSign.held": OURS,
    "WorkerSign.memory_bytes": OURS,
    "WorkerSign.disk_free_bytes": OURS,
    "WorkerSign.pid_space": OURS,
    "WorkerSign.pid": OURS,
}


def test_every_column_says_how_it_is_kept_clean() -> None:
    found = set(columns())
    assert found - set(CLEANED) == set(), "new: say in CLEANED what cleans it, or that only we make it"
    assert set(CLEANED) - found == set(), "gone"


@cache
def names_in(module: str) -> set[str]:
    """Names that a module defines or uses."""
    tree = ast.parse((ROOT / module).read_text())
    defined = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    return defined | {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


@pytest.mark.parametrize("column", [name for name, how in CLEANED.items() if how != OURS])
def test_what_cleans_a_column_is_there(column: str) -> None:
    how = CLEANED[column]
    for place in (how,) if isinstance(how, str) else how:
        module, _, name = place.partition(":")
        assert name in names_in(module), place
