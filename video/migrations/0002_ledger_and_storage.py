from django.db import migrations


class Migration(migrations.Migration):
    """What the ORM can't say: an append-only ledger, and room in the pages of the busy table."""

    dependencies = [("video", "0001_initial")]

    operations = [
        migrations.RunSQL(
            """
            CREATE FUNCTION video_ledger_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
                RAISE EXCEPTION 'The ledger is append-only: correct it with an entry of kind adjust.';
            END $$;
            CREATE TRIGGER video_creditentry_append_only BEFORE UPDATE OR DELETE ON video_creditentry
                FOR EACH ROW EXECUTE FUNCTION video_ledger_is_append_only();
            """,
            """
            DROP TRIGGER video_creditentry_append_only ON video_creditentry;
            DROP FUNCTION video_ledger_is_append_only();
            """,
        ),
        # Heartbeats update rows in place (HOT) only while their page has room; finished rows must not slow claims.
        migrations.RunSQL(
            """
            ALTER TABLE video_videotask SET (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.01,
                autovacuum_vacuum_threshold = 500, autovacuum_vacuum_cost_delay = 0);
            ALTER TABLE video_generation SET (fillfactor = 80);
            """,
            """
            ALTER TABLE video_videotask RESET (fillfactor, autovacuum_vacuum_scale_factor,
                autovacuum_vacuum_threshold, autovacuum_vacuum_cost_delay);
            ALTER TABLE video_generation RESET (fillfactor);
            """,
        ),
    ]
