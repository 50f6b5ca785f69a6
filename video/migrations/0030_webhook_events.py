from django.db import migrations

# The deliveries of an event are written in the statement that changes a task's status, whoever sends it: so there is
# one exactly when the change is committed. It must never fail that statement, which a user may have paid for: nothing
# here can be out of range, an endpoint's row is not deleted while a trigger may name it (it ends, and goes days later),
# and the user and the task are rows that the statement itself holds on to.
#
# The words are the API's: a cancelled task is a failed one with the errorCode "cancelled".
EVENTS = """
CREATE FUNCTION video_webhook_event(before text, after text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE
        WHEN after = 'running' AND before = 'pending' THEN 'task.started'
        WHEN after = 'running' THEN 'task.resumed'
        WHEN after = 'success' THEN 'task.succeeded'
        WHEN after = 'failed' THEN 'task.failed'
        WHEN after = 'cancelled' THEN 'task.cancelled'
    END
$$;
CREATE FUNCTION video_webhook_time(moment timestamptz) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT to_char(moment AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
$$;
CREATE FUNCTION video_write_webhooks() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    event_name text := video_webhook_event(OLD.status, NEW.status);
BEGIN
    INSERT INTO video_webhookdelivery (
        id, message_id, user_id, task_id, endpoint_id, url, target, event, facts, state, due_at, give_up_at)
    SELECT 'whd_' || replace(gen_random_uuid()::text, '-', ''), message.id, NEW.user_id, NEW.id, receiver.endpoint_id,
        receiver.url, receiver.target, event_name,
        jsonb_build_object(
            'taskId', NEW.id,
            'run', NEW.run,
            'status', CASE NEW.status WHEN 'cancelled' THEN 'failed' ELSE NEW.status END,
            'errorCode', CASE NEW.status WHEN 'cancelled' THEN 'cancelled' ELSE nullif(NEW.error_code, '') END,
            'videoId', NEW.video_id,
            'createdAt', video_webhook_time(NEW.created_at),
            'startedAt', video_webhook_time(NEW.started_at),
            'finishedAt', video_webhook_time(NEW.finished_at)),
        'pending', statement_timestamp(), statement_timestamp() + interval '24 hours'
    FROM (
        SELECT e.id AS endpoint_id, '' AS url, e.id AS target FROM video_webhookendpoint e
        WHERE e.user_id = NEW.user_id AND e.enabled AND e.ended_at IS NULL
            AND (e.events = '{}' OR event_name = ANY (e.events))
        UNION ALL
        SELECT NULL, NEW.webhook_url,
            NEW.user_id || ' ' || left(lower(coalesce(substring(NEW.webhook_url FROM '^[^:]+://([^/?#]*)'), '')), 280)
        WHERE NEW.webhook_url <> ''
    ) receiver, (SELECT 'msg_' || replace(gen_random_uuid()::text, '-', '') AS id) message
    WHERE event_name IS NOT NULL;
    RETURN NULL;
END $$;
CREATE TRIGGER video_task_writes_webhooks AFTER UPDATE OF status ON video_videotask
    FOR EACH ROW WHEN (OLD.status IS DISTINCT FROM NEW.status) EXECUTE FUNCTION video_write_webhooks();
"""
NO_EVENTS = """
DROP TRIGGER video_task_writes_webhooks ON video_videotask;
DROP FUNCTION video_write_webhooks();
DROP FUNCTION video_webhook_time(timestamptz);
DROP FUNCTION video_webhook_event(text, text);
"""


class Migration(migrations.Migration):

    dependencies = [
        ('video', '0029_webhooks'),
    ]

    operations = [
        migrations.RunSQL(EVENTS, NO_EVENTS),
    ]
