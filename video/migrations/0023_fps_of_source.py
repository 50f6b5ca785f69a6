from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('video', '0022_fetch_errors'),
    ]

    operations = [
        # More than 60 was taken once. A retry of such a task makes 60.
        migrations.RunSQL("UPDATE video_videotask SET fps = 60 WHERE fps > 60", migrations.RunSQL.noop),
        migrations.AlterField(
            model_name='videotask',
            name='fps',
            field=models.PositiveSmallIntegerField(default=30, help_text='Frames a second of the finished video, 1 to 60; 0: those of the source.'),
        ),
        migrations.AddConstraint(
            model_name='videotask',
            constraint=models.CheckConstraint(condition=models.Q(('fps__gte', 0), ('fps__lte', 60)), name='task_fps_known'),
        ),
    ]
