"""deploy/compose.yaml and deploy/make-secrets: what Compose accepts, and what otpmail and the store make of it."""

from __future__ import annotations

import re
import shlex
import subprocess
from typing import TYPE_CHECKING, Any, cast

import pytest
import redis
import yaml
from compose_spec import PyCompose

from deployment.files import DEPLOY, NAMES, ROOT, SECRETS, documents, load_settings, make_secrets
from ports import ReservedPort
from redis_server import find_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from otpmail.settings import Settings

FILE = DEPLOY / "compose.yaml"
_DRAIN_MARGIN = 5


def compose() -> dict[str, Any]:
    """Return the file."""
    (document,) = documents(FILE)
    return document


def service(name: str) -> dict[str, Any]:
    """Return one of its services."""
    return cast("dict[str, Any]", compose()["services"][name])


def test_the_file_is_one_of_compose() -> None:
    """The file keeps to the Compose specification. Each network, volume, config and secret that it uses is in it."""
    read = PyCompose.from_yaml(FILE.read_text("utf-8"))
    read.validate()
    assert [str(name) for name in read.services or ()] == list(compose()["services"])


@pytest.mark.parametrize(
    ("right", "wrong"),
    [("read_only", "readonly"), ("    secrets: [store_password]", "    secrets: [password]"), ("true", "yes please")],
)
def test_a_mistake_is_seen(right: str, wrong: str) -> None:
    """The check of the file refuses a wrong name, a secret that is not there, and a value of another type."""
    text = FILE.read_text("utf-8")
    assert right in text
    with pytest.raises(ValueError, match=r"services|secret"):
        PyCompose.from_yaml(text.replace(right, wrong)).validate()


def test_files_that_it_names() -> None:
    """Each file that the containers get is in the repository, or made by make-secrets under that name."""
    made = set(re.findall(r"^keep (\w+)", (DEPLOY / "make-secrets").read_text("utf-8"), re.MULTILINE))
    assert {entry["file"] for entry in compose()["secrets"].values()} == {f"secrets/{name}" for name in made}
    assert [(DEPLOY / entry["file"]).is_file() for entry in compose()["configs"].values()] == [True]
    assert (DEPLOY / service("otpmail")["build"] / "Dockerfile").is_file()


@pytest.mark.parametrize("name", ["otpmail", "envoy", "store"])
def test_no_container_can_do_more_than_it_must(name: str) -> None:
    """Each container has a read-only root, no capabilities and no way to new privileges."""
    given = service(name)
    assert given["read_only"] is True
    assert given["security_opt"] == ["no-new-privileges:true"]
    assert given["cap_drop"] == ["ALL"]


@pytest.mark.parametrize("name", ["otpmail", "envoy", "store"])
def test_no_log_fills_the_disk(name: str) -> None:
    """The log of each container is bounded."""
    logging = service(name)["logging"]
    assert logging["driver"] == "local"
    assert set(logging["options"]) == {"max-size", "max-file"}


def test_the_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The service reads the environment of the file and the secrets of make-secrets, beside the settings of a relay."""
    given = service("otpmail")
    assert set(given["environment"]) <= NAMES
    assert {name.upper() for name in given["secrets"]} <= SECRETS
    relay = {"EMAIL_HOST": "smtp.example.org", "EMAIL": "shop@example.org", "EMAIL_FROM": "shop@example.org"}
    folder = make_secrets(tmp_path)
    (folder / "app_password").write_text("of the relay\n")
    settings = load_settings(monkeypatch, given["environment"] | relay, folder, tmp_path)

    (cluster,) = documents(DEPLOY / "envoy.yaml")[0]["static_resources"]["clusters"]
    (endpoint,) = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]
    upstream = endpoint["endpoint"]["address"]["socket_address"]
    assert (upstream["address"], upstream["port_value"]) == ("otpmail", settings.server.port)
    assert settings.store.redis is not None
    assert settings.store.redis.hosts == (("store", 6379),)
    assert settings.store.redis.password == (folder / "store_password").read_text()
    assert "store" in compose()["services"]
    assert float(given["stop_grace_period"].removesuffix("s")) >= _stop_seconds(settings)


def _stop_seconds(settings: Settings) -> float:
    return settings.server.lameduck_seconds + settings.server.drain_seconds + _DRAIN_MARGIN


def test_replicas_stop_after_envoy_has_noticed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A replica that stops takes calls for longer than Envoy needs to ask for its health and to get the answer."""
    (check,) = documents(DEPLOY / "envoy.yaml")[0]["static_resources"]["clusters"][0]["health_checks"]
    seconds = [float(check[name].removesuffix("s")) for name in ("interval", "timeout")]
    given = service("otpmail")["environment"] | {"EMAIL": "shop@example.org"}
    folder = make_secrets(tmp_path)
    (folder / "app_password").write_text("of the relay\n")
    assert load_settings(monkeypatch, given, folder, tmp_path).server.lameduck_seconds > sum(seconds)


def test_secrets_are_made_once(tmp_path: Path) -> None:
    """make-secrets keeps what is there, so that a second run takes no key from stored mails. Only its user can look."""
    folder = make_secrets(tmp_path)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert make_secrets(tmp_path) == folder
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o644}


@pytest.fixture
def held_port() -> Iterator[ReservedPort]:
    """Hold a port for a server that can't listen on port 0."""
    with ReservedPort() as held:
        yield held


def test_the_store(tmp_path: Path, held_port: ReservedPort) -> None:
    """The store asks for the password, keeps an append-only file, evicts nothing, and ends by the signal of a stop."""
    program = find_server("valkey-9")
    assert program is not None
    password = (make_secrets(tmp_path) / "store_password").read_text()
    shell, option, script = service("store")["command"]
    for in_container, here in (
        ("$$", "$"),
        ("/run/secrets", str(tmp_path / "secrets")),
        ("valkey-server", shlex.quote(str(program))),
        ("dir /data", f"dir {tmp_path}\nport {held_port.port}"),
    ):
        assert in_container in script
        script = script.replace(in_container, here)
    process = subprocess.Popen([shell, option, script], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert any("Ready to accept connections" in line for line in process.stdout)
        with redis.Redis(port=held_port.port) as stranger, pytest.raises(redis.AuthenticationError):
            stranger.ping()
        with redis.Redis(port=held_port.port, password=password, decode_responses=True) as client:
            assert client.config_get("appendonly", "maxmemory-policy", "appendfsync") == {
                "appendonly": "yes",
                "maxmemory-policy": "noeviction",
                "appendfsync": "everysec",
            }
        process.terminate()
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.communicate()
    assert list((tmp_path / "appendonlydir").iterdir())


def test_ports() -> None:
    """Envoy publishes, on loopback alone, the port on which its file listens; no other container publishes any."""
    (listener,) = documents(DEPLOY / "envoy.yaml")[0]["static_resources"]["listeners"]
    port = listener["address"]["socket_address"]["port_value"]
    assert {name: given.get("ports") for name, given in compose()["services"].items()} == {
        "otpmail": None,
        "envoy": [f"127.0.0.1:{port}:{port}"],
        "store": None,
    }


def test_the_health_check_is_a_command_of_the_image() -> None:
    """The container of otpmail is asked by the image's entry point, as the image's own HEALTHCHECK does."""
    dockerfile = (ROOT / "Dockerfile").read_text("utf-8")
    (entry_point,) = re.findall(r"^ENTRYPOINT \[(.*)\]$", dockerfile, re.MULTILINE)
    (check,) = re.findall(r"HEALTHCHECK .*CMD \[(.*)\]$", dockerfile, re.MULTILINE)
    own = yaml.safe_load(f"[{check}]")
    assert own[0] == yaml.safe_load(entry_point)
    assert service("otpmail")["healthcheck"]["test"] == ["CMD", *own, "liveness"]
