from django.db import migrations, models


class Migration(migrations.Migration):
    """The roll-up of costs, and what touches it."""

    dependencies = [("video", "0037_key_label")]

    operations = [
        migrations.CreateModel(
            name="CostDay",
            fields=[
                ("day", models.DateField(primary_key=True, serialize=False)),
            ],
        ),
        migrations.CreateModel(
            name="CostRollup",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("day", models.DateField(help_text="UTC.")),
                ("user_id", models.BigIntegerField()),
                ("provider", models.CharField(blank=True, max_length=20)),
                ("model", models.CharField(blank=True, max_length=80)),
                ("key_fingerprint", models.CharField(blank=True, max_length=16)),
                ("outcome", models.CharField(max_length=10)),
                ("simulated", models.BooleanField()),
                ("cost_unit", models.CharField(blank=True, max_length=12)),
                ("attempts", models.BigIntegerField(help_text="That ended.")),
                ("reports", models.BigIntegerField(help_text="Attempts whose provider said what it charged.")),
                (
                    "reported",
                    models.DecimalField(decimal_places=4, help_text="That charge, in its unit.", max_digits=20),
                ),
                (
                    "reports_expected_usd",
                    models.DecimalField(decimal_places=4, help_text="What was expected of them.", max_digits=20),
                ),
                (
                    "estimated_usd",
                    models.DecimalField(
                        decimal_places=4,
                        help_text="Expected of those that may be charged and were not reported.",
                        max_digits=20,
                    ),
                ),
                (
                    "unpriced",
                    models.BigIntegerField(
                        help_text="Attempts that may be charged, with neither a report nor a price."
                    ),
                ),
                ("debits", models.BigIntegerField(help_text="Runs that were paid for.")),
                ("debited", models.BigIntegerField(help_text="Credits.")),
                ("refunded", models.BigIntegerField(help_text="Credits.")),
                ("free", models.BigIntegerField(help_text="Credits that were granted for a retry.")),
                ("granted", models.BigIntegerField(help_text="Other credits that were granted.")),
                ("adjusted", models.BigIntegerField(help_text="Credits of corrections, with their sign.")),
            ],
        ),
        migrations.CreateModel(
            name="CostTouch",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("day", models.DateField()),
            ],
        ),
        migrations.AddField(
            model_name="generation",
            name="took_nothing",
            field=models.BooleanField(
                blank=True,
                help_text="Of an attempt that ended: whether its provider surely charges nothing; empty: of an older version.",
                null=True,
            ),
        ),
        migrations.AddIndex(
            model_name="costrollup",
            index=models.Index(condition=models.Q(("user_id__gt", 0)), fields=["day"], name="cost_day_of_users"),
        ),
        migrations.AddConstraint(
            model_name="costrollup",
            constraint=models.UniqueConstraint(
                fields=("user_id", "day", "provider", "model", "key_fingerprint", "outcome", "simulated", "cost_unit"),
                name="cost_group_once",
            ),
        ),
        # What counts on a day changes with its entries and attempts, and with the status of their task: see
        # video/costs/facts.py. A touch of each such day is written in the transaction of the change.
        migrations.RunSQL(
            """
            CREATE FUNCTION video_cost_touch_task(one varchar) RETURNS void LANGUAGE sql AS $$
                INSERT INTO video_costtouch (day)
                SELECT (created_at AT TIME ZONE 'UTC')::date FROM video_creditentry WHERE task_id = one
                UNION SELECT (ended_at AT TIME ZONE 'UTC')::date FROM video_generation
                    WHERE task_id = one AND ended_at IS NOT NULL;
            $$;

            CREATE FUNCTION video_cost_entries() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
                INSERT INTO video_costtouch (day) SELECT DISTINCT (created_at AT TIME ZONE 'UTC')::date FROM added;
                RETURN NULL;
            END $$;
            CREATE TRIGGER video_creditentry_costs AFTER INSERT ON video_creditentry
                REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION video_cost_entries();

            CREATE FUNCTION video_cost_attempts_added() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
                INSERT INTO video_costtouch (day)
                SELECT (e.created_at AT TIME ZONE 'UTC')::date FROM video_creditentry e JOIN added USING (task_id)
                UNION SELECT (g.ended_at AT TIME ZONE 'UTC')::date FROM video_generation g JOIN added USING (task_id)
                    WHERE g.ended_at IS NOT NULL;
                RETURN NULL;
            END $$;
            CREATE TRIGGER video_generation_costs_added AFTER INSERT ON video_generation
                REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION video_cost_attempts_added();

            CREATE FUNCTION video_cost_attempt() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
                IF OLD.ended_at IS NOT NULL THEN
                    INSERT INTO video_costtouch (day) VALUES ((OLD.ended_at AT TIME ZONE 'UTC')::date);
                END IF;
                PERFORM video_cost_touch_task(OLD.task_id);
                RETURN NULL;
            END $$;
            -- Polls and other writes of a live attempt change nothing that counts.
            CREATE TRIGGER video_generation_costs AFTER UPDATE OF run, provider, model, key_fingerprint, simulated,
                cost_unit, user_id, ended_at, state, reported_cost, expected_usd, took_nothing
                ON video_generation FOR EACH ROW
                WHEN ((OLD.run, OLD.provider, OLD.model, OLD.key_fingerprint, OLD.simulated, OLD.cost_unit, OLD.user_id,
                        OLD.ended_at)
                    IS DISTINCT FROM (NEW.run, NEW.provider, NEW.model, NEW.key_fingerprint, NEW.simulated,
                        NEW.cost_unit, NEW.user_id, NEW.ended_at)
                    OR (OLD.ended_at IS NOT NULL AND (OLD.state, OLD.reported_cost, OLD.expected_usd, OLD.took_nothing)
                        IS DISTINCT FROM (NEW.state, NEW.reported_cost, NEW.expected_usd, NEW.took_nothing)))
                EXECUTE FUNCTION video_cost_attempt();
            CREATE TRIGGER video_generation_costs_gone AFTER DELETE ON video_generation
                FOR EACH ROW EXECUTE FUNCTION video_cost_attempt();

            CREATE FUNCTION video_cost_task() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
                PERFORM video_cost_touch_task(NEW.id);
                RETURN NULL;
            END $$;
            CREATE TRIGGER video_videotask_costs AFTER UPDATE OF status, run ON video_videotask FOR EACH ROW
                WHEN (OLD.run <> NEW.run OR (OLD.status <> NEW.status
                    AND (OLD.status NOT IN ('pending', 'running') OR NEW.status NOT IN ('pending', 'running'))))
                EXECUTE FUNCTION video_cost_task();
            """,
            """
            DROP TRIGGER video_videotask_costs ON video_videotask;
            DROP TRIGGER video_generation_costs_gone ON video_generation;
            DROP TRIGGER video_generation_costs ON video_generation;
            DROP TRIGGER video_generation_costs_added ON video_generation;
            DROP TRIGGER video_creditentry_costs ON video_creditentry;
            DROP FUNCTION video_cost_task();
            DROP FUNCTION video_cost_attempt();
            DROP FUNCTION video_cost_attempts_added();
            DROP FUNCTION video_cost_entries();
            DROP FUNCTION video_cost_touch_task(varchar);
            """,
        ),
    ]
