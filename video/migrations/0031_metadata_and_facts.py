import django.contrib.postgres.indexes
import django.db.models.functions.comparison
import django.db.models.lookups
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('video', '0030_webhook_events'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.AddField(
            model_name='videotask',
            name='metadata',
            field=models.JSONField(blank=True, db_default=models.Value({}, models.JSONField()), default=dict, help_text="Pairs of short strings of the client's own, by which its list is filtered."),
        ),
        migrations.AddField(
            model_name='videotask',
            name='video_fps',
            field=models.FloatField(blank=True, help_text='Frames a second of the finished video.', null=True),
        ),
        migrations.AddField(
            model_name='videotask',
            name='video_has_sound',
            field=models.BooleanField(blank=True, help_text='Whether the finished video has sound.', null=True),
        ),
        migrations.AddIndex(
            model_name='videotask',
            index=models.Index(condition=models.Q(('finished_at__isnull', False)), fields=['user', '-finished_at'], name='task_ended_of_user'),
        ),
        migrations.AddIndex(
            model_name='videotask',
            index=django.contrib.postgres.indexes.GinIndex(django.contrib.postgres.indexes.OpClass(models.Func(models.Value({}, models.JSONField()), models.Func(django.db.models.functions.comparison.Cast(models.F('user'), models.TextField()), output_field=models.TextField(), template='ARRAY[%(expressions)s]'), models.F('metadata'), function='jsonb_set', output_field=models.JSONField()), name='jsonb_path_ops'), condition=models.Q(('metadata', {}), _negated=True), name='task_metadata_of_user'),
        ),
        migrations.AddConstraint(
            model_name='videotask',
            constraint=models.CheckConstraint(condition=models.Q(django.db.models.lookups.Exact(models.Func(models.F('metadata'), function='jsonb_typeof', output_field=models.TextField()), 'object')), name='task_metadata_is_object'),
        ),
        migrations.AddConstraint(
            model_name='videotask',
            constraint=models.CheckConstraint(condition=models.Q(django.db.models.lookups.LessThanOrEqual(models.Func(models.Func(models.F('metadata'), template="jsonb_path_query_array(%(expressions)s, '$.keyvalue()', '{}', true)"), function='jsonb_array_length', output_field=models.IntegerField()), 16)), name='task_metadata_has_16_pairs_at_most'),
        ),
        migrations.AddConstraint(
            model_name='videotask',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('gone_why', 'deleted'), _negated=True), ('metadata', {}), _connector='OR'), name='task_deleted_holds_no_metadata'),
        ),
    ]
