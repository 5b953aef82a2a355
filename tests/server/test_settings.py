"""Settings: defaults, then variables, then flags; and what a worker or a log line is given of them."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_lookoutvision.server.settings import Settings, SettingsError, is_loopback, load

VALID: dict[type, tuple[tuple[str, Any], tuple[str, Any]]] = {
    str: (("warning", "warning"), ("error", "error")),
    int: (("7", 7), ("8", 8)),
    float: (("0.5", 0.5), ("2", 2.0)),
    bool: (("yes", True), ("false", False)),
    Path: (("/one", Path("/one")), ("/two", Path("/two"))),
    tuple: (("a, b,", ("a", "b")), ("c", ("c",))),
}
# These are right or wrong together only.
PAIRED = {"tls_certificate": {"tls_key": "/key"}, "tls_key": {"tls_certificate": "/certificate"}}
SETTINGS = {setting.name: setting for setting in fields(Settings)}


@pytest.mark.parametrize("name", sorted(SETTINGS.keys() - {"allowed_origins", "buckets", "training_effort"}))
def test_a_variable_sets_it_and_a_flag_wins(name: str) -> None:
    (in_variable, first), (in_flag, second) = VALID[SETTINGS[name].metadata["kind"]]
    environ = {"LOOKOUTVISION_" + name.upper(): in_variable}
    flags = PAIRED.get(name, {})
    assert getattr(load(flags, environ), name) == first
    assert getattr(load({**flags, name: in_flag}, environ), name) == second
    assert getattr(load({**flags, name: None}, environ), name) == first


def test_nothing_set_is_the_default(tmp_path: Path) -> None:
    assert load({"data_dir": tmp_path}, {}) == Settings(data_dir=tmp_path)
    # An empty variable is none: shells and compose files make them so.
    environ = {f"LOOKOUTVISION_{name.upper()}": "" for name in SETTINGS}
    assert load({"data_dir": tmp_path}, environ) == Settings(data_dir=tmp_path)


def test_the_defaults_keep_to_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", "/xdg")
    defaults = Settings()
    assert (defaults.host, defaults.port) == ("127.0.0.1", 8320)
    assert defaults.data_dir == Path("/xdg/lookoutvision")
    assert defaults.url == "sqlite-file:/xdg/lookoutvision/lookoutvision.db"
    assert (defaults.max_projects, defaults.requests_per_second) == (None, None)
    defaults.refuse_open_plaintext()
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", "/home/me")
    assert Settings().data_dir == Path("/home/me/.local/share/lookoutvision")


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"LOOKOUTVISION_PORT": "eight"}, "LOOKOUTVISION_PORT is 'eight': "),
        ({"LOOKOUTVISION_REQUESTS_PER_SECOND": "few"}, "LOOKOUTVISION_REQUESTS_PER_SECOND is 'few': "),
        ({"LOOKOUTVISION_ALLOW_PLAINTEXT": "maybe"}, "it must be true or false"),
    ],
)
def test_a_wrong_value_is_reported_with_its_source(environ: dict[str, str], said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load({}, environ)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"training_cpus": -1}, "training_cpus is -1.0; it must be at least 0, and finite"),
        ({"training_cpus": "nan"}, "training_cpus is nan; it must be at least 0, and finite"),
        ({"training_gpus": "inf"}, "training_gpus is inf; it must be at least 0, and finite"),
        ({"training_gpus": "1.5"}, "training_gpus is 1.5; Ray gives a part of one GPU, or whole ones"),
        ({"cluster": "ray://head:10001"}, "cluster is ray://head:10001; a process whose Ray client loses"),
    ],
)
def test_what_cannot_be_had_of_a_cluster(flags: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(flags, {})
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("::ffff:10.0.0.1", False),
        ("localhost.example.com", False),
        ("", False),
    ],
)
def test_what_is_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


def test_the_effort_of_trainings_is_quick_or_thorough() -> None:
    assert load({}, {}).training_effort == "quick"
    assert load({}, {"LOOKOUTVISION_TRAINING_EFFORT": "thorough"}).training_effort == "thorough"
    with pytest.raises(SettingsError, match="it must be one of quick, thorough"):
        load({"training_effort": "most"}, {})


def test_an_effort_that_trains_another_network_than_the_one_that_is_set() -> None:
    assert load({"backbone": "net.onnx"}, {}).backbone == Path("net.onnx")
    with pytest.raises(SettingsError, match=r"can't be chosen where the setting backbone is: .*net\.onnx"):
        load({"backbone": "net.onnx", "training_effort": "thorough"}, {})
