"""What the models promise is in the database, whatever the migrations did on their way."""

from __future__ import annotations

import pytest
from django.apps import apps
from django.db import connection

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("model", list(apps.get_app_config("video").get_models()), ids=lambda model: model.__name__)
def test_every_index_and_constraint_of_the_models_is_there(model: type) -> None:
    with connection.cursor() as cursor:
        found = set(connection.introspection.get_constraints(cursor, model._meta.db_table))  # type: ignore[attr-defined]
    meta = model._meta  # type: ignore[attr-defined]
    wanted = {one.name for one in (*meta.indexes, *meta.constraints)}
    assert wanted <= found, wanted - found
