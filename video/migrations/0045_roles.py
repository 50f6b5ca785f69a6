"""The roles' table; the audit lets an erased user's name go, and has what Django's own log of the admin has.

The groups themselves are made at the end of `migrate` (`video.web.roles`): only then all permissions are there.
"""

import django.contrib.postgres.fields
import django.db.models.deletion
from django.db import migrations, models

APPEND_ONLY = """
CREATE OR REPLACE FUNCTION video_audit_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'The audit is append-only.';
END $$
"""
BUT_FOR_ERASED_NAMES = """
CREATE OR REPLACE FUNCTION video_audit_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    erased text := coalesce(current_setting('reelworks.erases_user', true), '');
BEGIN
    IF TG_OP = 'UPDATE' AND erased <> '' THEN
        IF (NEW.id, NEW.at, NEW.user_id, NEW.via, NEW.action, NEW.kind, NEW.object_id, NEW.detail)
                IS NOT DISTINCT FROM
                (OLD.id, OLD.at, OLD.user_id, OLD.via, OLD.action, OLD.kind, OLD.object_id, OLD.detail)
            AND NEW.source IN (OLD.source, '') AND NEW.reason IN (OLD.reason, '')
            AND (NEW.actor = OLD.actor OR (OLD.user_id::text = erased AND starts_with(NEW.actor, 'erased-' || erased)))
        THEN
            RETURN NEW;
        END IF;
    END IF;
    RAISE EXCEPTION 'The audit is append-only.';
END $$
"""
#: What was done to credits has an operator's note in its text, which the ledger forgets when a user is erased.
FORMER_LOG = """
INSERT INTO video_auditrecord (at, actor, user_id, via, source, action, kind, object_id, reason, detail)
SELECT l.action_time, u.username, u.id, 'admin', '',
    CASE l.action_flag WHEN 1 THEN 'add' WHEN 2 THEN 'change' ELSE 'delete' END,
    left(c.model, 40), left(coalesce(l.object_id, ''), 200), '',
    CASE WHEN c.model = 'account' OR starts_with(l.change_message, '[') THEN '' ELSE left(l.change_message, 300) END
FROM django_admin_log l
JOIN auth_user u ON u.id = l.user_id JOIN django_content_type c ON c.id = l.content_type_id
WHERE u.username <> '' ORDER BY l.id
"""


class Migration(migrations.Migration):
    dependencies = [
        ("admin", "0003_logentry_add_action_flag_choices"),
        ("auth", "0012_alter_user_first_name_max_length"),
        ("video", "0043_pauses"),
    ]

    operations = [
        migrations.CreateModel(
            name="Role",
            fields=[
                ("name", models.CharField(max_length=20, primary_key=True, serialize=False)),
                (
                    "given",
                    django.contrib.postgres.fields.ArrayField(
                        base_field=models.CharField(max_length=140),
                        default=list,
                        help_text="Permissions that it was given.",
                        size=None,
                    ),
                ),
                (
                    "group",
                    models.OneToOneField(
                        null=True, on_delete=django.db.models.deletion.SET_NULL, related_name="+", to="auth.group"
                    ),
                ),
            ],
            options={"default_permissions": ()},
        ),
        migrations.RunSQL(BUT_FOR_ERASED_NAMES, APPEND_ONLY),
        migrations.RunSQL(FORMER_LOG, migrations.RunSQL.noop),
    ]
