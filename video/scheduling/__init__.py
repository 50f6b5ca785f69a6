"""Whose turn it is: slots and transcoding cores by fair share, places in the queue, waiting times, full backlogs.

Tables: `UserShare` (written by operators) and `UserUsage`. Admission plans attempts and makes tasks due through the
functions of `video.engine` and `video.attempts.records`.
"""
