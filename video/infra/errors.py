"""What `video` refuses, and why, as one tree.

    Refusal                          catch it to tell people; nothing was changed
    ├── OrderRefused                 the order can't be made here: change it, or ask the operator
    ├── NoCapableModel               no model can make this video: change the order
    │   └── ModelUnavailable         a model could, but none is available here: the operator can change that
    ├── InsufficientCredits          the account holds too little: grant credits, then repeat
    ├── KeyLimitReached              the API key has spent what it may today: repeat on the next day
    ├── TooManyWaiting               the backlog is full: repeat after `retry_after_s`
    ├── TooManyLive                  too many of the user's tasks are under way: repeat after `retry_after_s`
    ├── TooManyRequests              the minute's requests are used up: repeat after `retry_after_s`
    ├── StorageFull                  the user's files have all the bytes they may have: delete some
    ├── TooManyTries                 too many logins have failed: repeat after `retry_after_s`
    ├── LoginsBusy                   too many logins come at once: repeat after `retry_after_s`
    ├── KeyReused                    the Idempotency-Key stands for another request: use a new key
    ├── KeyInUse                     the first call with this key is under way: repeat after `retry_after_s`
    ├── TooManyKeys                  the user has as many API keys as may be: revoke one
    ├── NoSuchKey                    there is no such API key, or it is another user's
    ├── NoSuchUpload                 the upload is gone, or it is another user's: send the picture again
    ├── UploadsFull                  the user's uploads fill their quota: repeat after `retry_after_s`
    ├── UploadsBusy                  too many pictures are read at once: repeat after `retry_after_s`
    ├── ActionRefused                the task's state forbids it: read the task again
    │   ├── TaskDeleted              its owner has deleted it: nothing is left of it
    │   └── NoSuchTask               there is no such task, or it is another user's
    ├── WebhookRefused               the endpoint's or delivery's state forbids it: read it again
    │   └── NoSuchWebhook            there is none, or it is another user's
    ├── SettlementRefused            the attempt's state forbids it: read the attempt again
    ├── DecisionRefused              no such failure text, or one for which nothing can be decided: look at the list
    ├── JobRefused                   an operator's job can't be asked for, or has ended: look at the jobs
    └── InvalidSelection             a command names what does not exist: correct the command

Apart from the tree, since no caller is told of them: IllegalMove (a mistake in our code), KeyGone and Paused (a stage
parks), BrokerUnavailable (the sweeper sends it again).
"""

from __future__ import annotations


class Refusal(Exception):
    """It can't be done now, and nothing was changed. `code` is for programs, the text for people."""

    code = "refused"
