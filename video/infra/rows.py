"""Rows of several models from one statement: names of columns for its SELECT, and objects from what it returns."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, TypeVar

from django.db import connection, models

Row = TypeVar("Row", bound=models.Model)


class Columns:
    """The columns of a model in one order, all but those that are left out: read when they are asked for."""

    def __init__(self, model: type[Row], *, without: Collection[str] = ()) -> None:
        self._model = model
        self._fields = [field for field in model._meta.concrete_fields if field.attname not in without]

    def __len__(self) -> int:
        return len(self._fields)

    def of(self, alias: str) -> str:
        """Their names in SQL, of a table by this alias."""
        return ", ".join(f"{alias}.{field.column}" for field in self._fields)

    def row(self, values: Sequence[Any]) -> Any:
        """The object of these values, as the driver returned them; None where an outer join found no row."""
        if values[self._fields.index(self._model._meta.pk)] is None:
            return None
        read = [
            field.from_db_value(value, None, connection) if hasattr(field, "from_db_value") else value
            for field, value in zip(self._fields, values, strict=True)
        ]
        return self._model.from_db(connection.alias, [field.attname for field in self._fields], read)
