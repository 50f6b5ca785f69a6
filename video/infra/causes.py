"""What an error was, in one word that may be shown anywhere: its text may hold an address or a password."""

from __future__ import annotations


def kind_of(err: BaseException) -> str:
    """The type name of the error that began it: libraries wrap it into their own, such as a refused connection into
    kombu's OperationalError.

    Python's own errors other than OSError don't count below the top: they are what the library handled on its way,
    such as the IndexError of an empty pool.
    """
    found = each = err
    seen = {id(err)}
    while (below := each.__cause__ or each.__context__) is not None and id(below) not in seen:
        seen.add(id(below))
        each = below
        if isinstance(each, OSError) or type(each).__module__ != "builtins":
            found = each
    return type(found).__name__
