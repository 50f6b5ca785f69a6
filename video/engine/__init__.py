"""The state machine of a task: claims, moves, leases, what is due, and the messages that wake workers.

Tables: `VideoTask` (status, stage, clocks, fence), `TaskEvent` (each row with the move that it records) and
`WorkerSign`. Every write of a task's row is made here or in `video.actions`; each is one conditional UPDATE, and
losing a race is a normal answer. Knows no provider and no policy.
"""
