"""The registry: each provider's row is whole, and costs a start next to nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from providers import catalogue
from providers.entry import ProviderEntry
from providers.registry import BY_NAME, NAMES, PROVIDERS

FOLDER = Path(__file__).resolve().parents[2] / "providers"
EACH = pytest.mark.parametrize("provider", PROVIDERS, ids=lambda provider: provider.name)


def test_every_folder_with_an_adapter_is_in_the_registry() -> None:
    assert {path.parent.name for path in FOLDER.glob("*/adapter.py")} == set(NAMES) == set(BY_NAME)


@EACH
def test_all_of_a_row_speaks_of_the_same_provider(provider: ProviderEntry) -> None:
    assert {model.provider for model in provider.models} == {provider.name}
    assert provider.load_dialect().name == provider.name
    assert (provider.callbacks is not None) == provider.adapter.can_call_back
    ids = {model.id for model in provider.models}
    assert {one for pair in provider.aliases.values() for one in pair} <= ids


def test_no_provider_takes_names_from_another() -> None:
    assert len(catalogue.MODELS) == len(catalogue.BY_ID)
    assert sum(len(provider.aliases) for provider in PROVIDERS) == len(catalogue.ALIASES)
    assert not set(catalogue.ALIASES) & set(catalogue.BY_ID)


def test_the_registry_imports_no_http_client_and_no_simulator() -> None:
    heavy = ("aiohttp", "requests", "urllib3", "cryptography", "PIL", "providers.dialect", "providers.simulator")
    program = f"import sys; from providers import catalogue; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=FOLDER.parent, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_a_worker_imports_no_simulator() -> None:
    program = (
        "import sys, django; django.setup(); import video.processes.tasks; "
        "print([name for name in sys.modules if name.startswith(('providers.simulator', 'providers.dialect'))])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=FOLDER.parent, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
