"""A broker behind TLS, through the real system: certificates are verified unless the address says otherwise."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import requests
from django.conf import settings

from tests.certificates import Certificates
from tests.factories import make_task, reload
from tests.proxy import Proxy, valkey_behind
from tests.system.system import Simulator, System, until
from tests.system.test_outage_live import free_port


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def over_tls(certificates: Certificates) -> Iterator[tuple[Proxy, str]]:
    """The suite's Valkey, which speaks TLS with a certificate that no public authority signed."""
    proxy, url = valkey_behind(settings.CELERY_BROKER_URL, tls=certificates.server())
    yield proxy, url
    proxy.close()


def broker_of(system: System, url: str) -> str:
    """What a web process with this CELERY_BROKER_URL says of its broker."""
    system.env["CELERY_BROKER_URL"] = url
    port = free_port()
    system.web(port)
    reply = requests.get(f"http://127.0.0.1:{port}/readyz", timeout=60).json()
    return str((reply["data"] if reply["success"] else reply["error"]["details"])["broker"])


def test_a_certificate_that_nobody_vouches_for_is_refused(system: System, over_tls: tuple[Proxy, str]) -> None:
    assert broker_of(system, over_tls[1]) == "can't be used (SSLCertVerificationError)"
    assert broker_of(system, f"{over_tls[1]}?ssl_cert_reqs=optional") == "can't be used (SSLCertVerificationError)"


def test_so_is_one_of_another_host(system: System, over_tls: tuple[Proxy, str], certificates: Certificates) -> None:
    elsewhere = over_tls[1].replace("127.0.0.1", "localhost") + f"?ssl_ca_certs={certificates.authority}"
    assert broker_of(system, elsewhere) == "can't be used (SSLCertVerificationError)"
    assert broker_of(system, f"{elsewhere}&ssl_check_hostname=false") == "ok"


@pytest.mark.parametrize("said", ["ssl_ca_certs={authority}", "ssl_cert_reqs=none", "ssl_cert_reqs=CERT_NONE"])
def test_videos_are_made_once_the_address_says_whom_to_trust(
    said: str, system: System, simulator: Simulator, over_tls: tuple[Proxy, str], certificates: Certificates
) -> None:
    url = over_tls[1].replace("rediss://", "valkeys://") + "?" + said.format(authority=certificates.authority)
    assert broker_of(system, url) == "ok"
    system.worker()
    system.sweeper()
    task = make_task(prompt=f"over TLS {said[:18]}")
    until(f"{task.pk} ends", lambda: reload(task).finished_at)
    assert reload(task).status == "success"
    assert "can't be used" not in system.logs()
