"""A real service on each database, clients of it, raw requests, and what the service logged of them.

=============== ======== ===============================================================================
``database``    session  ``"sqlite"``, then ``"postgresql"``: tests that use it, or one of the fixtures below,
                         run on both. ``pytest --database=sqlite`` (or ``postgresql``) leaves one out, and
                         so does ``@pytest.mark.one_database``, for what is the same on every database.
``new_database`` session a function: the flags that give ``lookoutvision`` an empty database of that kind
``service``     session  the running service (``testing.service.Service``), shared by all tests
``storage``     session  its database and its cipher, opened by this process beside it
``new_key``     test     a function: an access key of the test's account, made within milliseconds
``make_client`` test     a function: a boto3 client of the service, with a key of its own
``client``      test     such a client that may do everything
``new_service`` test     a function: another service, on a database of its own, for tests that stop, limit
                         or break theirs
``certificate`` test     a certificate for 127.0.0.1 that vouches for itself, and its key: two files
=============== ======== ===============================================================================
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from postgres_server import PostgresServer
from services import (
    REGION,
    MakeClient,
    NewDatabase,
    NewKey,
    NewService,
    Storage,
    beside,
    client_of,
    storage_of,
)
from signed_http import SignedHttpClient

from airflow_provider_lookoutvision.testing.service import Key, Service, running_service

DATABASES = ("sqlite", "postgresql")
Logged = Callable[[str], dict[str, Any]]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "one_database: what is tested is the same on every database")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "database" in metafunc.fixturenames:
        chosen = metafunc.config.getoption("database")
        databases = list(DATABASES) if chosen == "both" else [chosen]
        if metafunc.definition.get_closest_marker("one_database"):
            databases = databases[:1]
        metafunc.parametrize("database", databases, indirect=True, scope="session")


@pytest.fixture(scope="session")
def database(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def new_database(database: str, postgres_server: Callable[[], PostgresServer]) -> NewDatabase:
    def new_database() -> list[str]:
        return [] if database == "sqlite" else ["--database-url", postgres_server().new_database()]

    return new_database


@pytest.fixture(scope="session")
def _services(_session_stack: ExitStack) -> dict[str, tuple[Service, Storage]]:
    return {}


@pytest.fixture(scope="session")
def service(
    database: str,
    new_database: NewDatabase,
    _services: dict[str, tuple[Service, Storage]],
    _session_stack: ExitStack,
) -> Service:
    # A session's parameters may alternate between tests, and a service lasts longer than one turn.
    if database not in _services:
        service = _session_stack.enter_context(running_service(flags=new_database()))
        _services[database] = service, _session_stack.enter_context(storage_of(service))
    return _services[database][0]


@pytest.fixture(scope="session")
def storage(service: Service, database: str, _services: dict[str, tuple[Service, Storage]]) -> Storage:
    return _services[database][1]


@pytest.fixture
def new_key(storage: Storage, account: str) -> NewKey:
    """``new_key(account=..., allow=[patterns], project=[patterns])``"""

    def new_key(account: str = account, **permissions: Sequence[str]) -> Key:
        return storage.new_key(account, **permissions)

    return new_key


@pytest.fixture
def make_client(service: Service, new_key: NewKey) -> Iterator[MakeClient]:
    """``make_client(region=..., attempts=..., key=..., endpoint_url=..., <what new_key takes>)``"""
    with ExitStack() as stack:

        def make_client(
            *,
            key: Key | None = None,
            endpoint_url: str = service.endpoint_url,
            region: str = REGION,
            attempts: int = 1,
            config: Mapping[str, Any] | None = None,
            **permissions: Any,
        ) -> Any:
            client = client_of(
                endpoint_url, key or new_key(**permissions), region=region, attempts=attempts, **config or {}
            )
            stack.callback(client.close)
            return client

        yield make_client


@pytest.fixture
def client(make_client: MakeClient) -> Any:
    return make_client()


@pytest.fixture
def new_service(new_database: NewDatabase, tmp_path: Path) -> Iterator[NewService]:
    """``new_service(*flags, environ={...}, data_dir=..., database=flags of an existing one, command=...)``"""
    with ExitStack() as stack:

        def new_service(
            *flags: str,
            environ: Mapping[str, str] | None = None,
            data_dir: Path | None = None,
            database: Sequence[str] | None = None,
            command: Sequence[str] | None = None,
        ) -> Service:
            folder = data_dir or tmp_path / f"service-{secrets.token_hex(4)}"
            flags = (*(new_database() if database is None else database), *flags)
            return stack.enter_context(running_service(folder, flags, environ, command))

        yield new_service


@pytest.fixture
def signed_http(service: Service, new_key: NewKey) -> SignedHttpClient:
    """Sends raw requests, signed with a key that may do everything in the test's account."""
    return SignedHttpClient(service.endpoint_url, new_key())


@pytest.fixture
def logged(service: Service) -> Logged:
    """``logged(request_id)``: the service's log line of that request."""

    def logged(request_id: str) -> dict[str, Any]:
        lines = reversed(service.log_file.read_text().splitlines())
        return next(json.loads(line) for line in lines if request_id in line)  # type: ignore[no-any-return]

    return logged


@pytest.fixture(scope="session")
def start_second_process(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Any]:
    """``with start_second_process() as second_process``: another process with the database of ``service``."""

    def start() -> Any:
        data_dir, flags = beside(service, tmp_path_factory.mktemp("second") / "data")
        return running_service(data_dir, [*flags, "--no-worker"])

    return start


@pytest.fixture(scope="session")
def second_process(
    database: str,
    start_second_process: Callable[[], Any],
    _second_processes: dict[str, Service],
    _session_stack: ExitStack,
) -> Service:
    if database not in _second_processes:
        _second_processes[database] = _session_stack.enter_context(start_second_process())
    return _second_processes[database]


@pytest.fixture(scope="session")
def _second_processes() -> dict[str, Service]:
    return {}


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that vouches for itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "lookoutvision test")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = tmp_path / "certificate.pem", tmp_path / "key.pem"
    paths[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return paths
