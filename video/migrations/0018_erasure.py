import django.db.models.deletion
import django.db.models.functions.datetime
from django.conf import settings
from django.db import migrations, models

# The past of the ledger stays as it is, but for a note that may name a user who is erased: it may be emptied.
NOTES_MAY_GO = """
CREATE OR REPLACE FUNCTION video_ledger_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    as_it_was video_creditentry := NEW;
BEGIN
    IF TG_OP = 'UPDATE' AND NEW.note = '' THEN
        as_it_was.note := OLD.note;
        IF as_it_was = OLD THEN RETURN NEW; END IF;
    END IF;
    RAISE EXCEPTION 'The ledger is append-only: correct it with an entry of kind adjust.';
END $$;
"""
NOTES_STAY = """
CREATE OR REPLACE FUNCTION video_ledger_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'The ledger is append-only: correct it with an entry of kind adjust.';
END $$;
"""
# A job may end after its task was deleted: what its provider says then may repeat the prompt, and is not kept.
TEXTS_GO = """
CREATE FUNCTION video_generation_of_deleted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM video_videotask WHERE id = NEW.task_id AND gone_why = 'deleted') THEN
        NEW.error_message := '';
        NEW.provider_status := '';
        NEW.job_urls := '{}';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER video_generation_of_deleted BEFORE UPDATE OF state, error_message ON video_generation FOR EACH ROW
    WHEN (NEW.state NOT IN ('planned', 'unknown', 'accepted')) EXECUTE FUNCTION video_generation_of_deleted();
"""
TEXTS_STAY = """
DROP TRIGGER video_generation_of_deleted ON video_generation;
DROP FUNCTION video_generation_of_deleted();
"""


class Migration(migrations.Migration):

    dependencies = [
        ('video', '0017_retention'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name='UserErasure',
            fields=[
                ('user', models.OneToOneField(on_delete=django.db.models.deletion.CASCADE, primary_key=True, related_name='erasure', serialize=False, to=settings.AUTH_USER_MODEL)),
                ('asked_by', models.CharField(help_text="The operator's name.", max_length=150)),
                ('asked_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ('ended_at', models.DateTimeField(blank=True, help_text='When nothing of the user was left.', null=True)),
            ],
        ),
        migrations.AddConstraint(
            model_name='usererasure',
            constraint=models.CheckConstraint(condition=models.Q(('ended_at__gte', models.F('asked_at'))), name='erasure_ends_after_it_was_asked'),
        ),
        migrations.RunSQL(NOTES_MAY_GO, NOTES_STAY),
        migrations.RunSQL(TEXTS_GO, TEXTS_STAY),
    ]
