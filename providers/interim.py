"""Reads past interim answers: a proxy may send 102 or 103 before the real answer of any request.

RFC 9110, 15.2: "A client MUST be able to parse one or more 1xx responses received prior to a final response, even if
the client does not expect one." http.client skips 100 only, up to Python 3.14; it takes a 103 for the answer, and the
real one stays unread on the connection.
"""

from __future__ import annotations

from http import HTTPStatus
from http.client import HTTPException, HTTPResponse

#: A server that sends one each second as a sign of life gets by; one that sends nothing else does not.
MOST_INTERIM_ANSWERS = 100


class TooManyInterimAnswers(HTTPException):
    """No end of 1xx answers, and no real one."""


class SwitchedProtocols(HTTPException):
    """101: from here on the server speaks another protocol, which nobody asked for."""


class FinalResponse(HTTPResponse):
    """What an http.client connection reads with as its `response_class`: the first answer that is no interim one.

    Raises TooManyInterimAnswers and SwitchedProtocols. Time is bounded by whoever owns the socket.
    """

    _interim_answers = 0

    def _read_status(self) -> tuple[str, int, str]:
        # The one place where http.client reads a status line. `begin` skips the headers of what says CONTINUE and asks
        # again, with a limit of its own on lines and their number; so every interim answer says CONTINUE here.
        version, status, reason = super()._read_status()  # type: ignore[misc]
        if status == HTTPStatus.SWITCHING_PROTOCOLS:
            raise SwitchedProtocols("101 was not asked for")
        if not 100 <= status < 200:
            return version, status, reason
        self._interim_answers += 1
        if self._interim_answers > MOST_INTERIM_ANSWERS:
            raise TooManyInterimAnswers(f"more than {MOST_INTERIM_ANSWERS} interim answers")
        return version, int(HTTPStatus.CONTINUE), reason
