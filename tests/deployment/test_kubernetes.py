"""deploy/kubernetes: what Kubernetes accepts, and that it says to otpmail what it means to say."""

from __future__ import annotations

import asyncio
import os
import re
import urllib.request
from typing import TYPE_CHECKING, Any

import grpc.aio
import kubernetes_validate
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from deployment.files import (
    KUBERNETES,
    NAMES,
    ROOT,
    SECRETS,
    Document,
    containers,
    documents,
    environment,
    load_settings,
    make_secrets,
    manifests,
    otpmail_container,
)
from otpmail.rpc.health import LIVENESS
from service import Service, relay_settings

if TYPE_CHECKING:
    from pathlib import Path

    from otpmail.settings import Settings
    from relay import Certificates, Relay

VERSIONS = ("1.30", kubernetes_validate.latest_version())
_WITH_OTPMAIL = ("deployment.yaml", "sidecar.yaml")
_DRAIN_MARGIN = 5
_MEBI = 1 << 20


def one(file: str) -> Document:
    """Return the only document of a file."""
    (document,) = documents(KUBERNETES / file)
    return document


def pod(file: str) -> Document:
    """Return what a file says of its pods."""
    spec: Document = one(file)["spec"]["template"]["spec"]
    return spec


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("file", "document"), list(manifests()))
def test_kubernetes_accepts_it(file: str, document: Document, version: str) -> None:
    """Each document keeps to the schema of its kind, without a name that the schema lacks."""
    assert kubernetes_validate.validate(document, version, strict=True), file


def test_a_mistake_is_seen() -> None:
    """The check of the documents refuses a wrong name and a value of another type."""
    for name, value in (("replica", 2), ("replicas", "two")):
        document = one("deployment.yaml")
        document["spec"][name] = value
        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(document, VERSIONS[0], strict=True)


def mounted(tmp_path: Path) -> Path:
    """Lay out secrets as the kubelet mounts them: names that link through a folder which a change replaces at once."""
    made = make_secrets(tmp_path)
    folder = tmp_path / "mounted"
    (folder / "..2026_11_28").mkdir(parents=True)
    (folder / "..data").symlink_to("..2026_11_28")
    for path in made.iterdir():
        (folder / "..2026_11_28" / path.name.upper()).write_text(path.read_text() or "of the relay")
        (folder / path.name.upper()).symlink_to(f"..data/{path.name.upper()}")
    return folder


def settings_of(file: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Settings:
    """Return the settings that otpmail reads in the container of a file."""
    given = environment(otpmail_container(file))
    return load_settings(monkeypatch, given, mounted(tmp_path), tmp_path)


@pytest.mark.parametrize("file", _WITH_OTPMAIL)
def test_the_settings(file: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The service reads each setting of the container, and the secrets from where they are mounted."""
    container = otpmail_container(file)
    given = environment(container)
    assert set(given) <= NAMES
    (volume,) = container["volumeMounts"]
    assert (volume["mountPath"], volume["readOnly"]) == (given["SECRETS_DIR"], True)
    settings = settings_of(file, monkeypatch, tmp_path)
    assert settings.otp.derivation_keys
    assert settings.relay.user == "shop@example.org"


@pytest.mark.parametrize("file", _WITH_OTPMAIL)
def test_ports_and_probes(file: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A container's ports are those of its settings. Its probes ask a port on which it listens, by a name it knows."""
    container = otpmail_container(file)
    server = settings_of(file, monkeypatch, tmp_path).server
    ports = {entry["name"]: entry["containerPort"] for entry in container["ports"]}
    assert ports in ({"grpc": server.port, "http": server.http_port}, {"otpmail-http": server.http_port})
    for name in ("startupProbe", "readinessProbe", "livenessProbe"):
        probe: dict[str, Any] = container.get(name, {})
        if "grpc" in probe:
            assert probe["grpc"]["port"] == server.port
            assert probe["grpc"].get("service", "") == ("" if name == "readinessProbe" else LIVENESS)
            assert "0.0.0.0" in {address.host for address in server.hosts} or "::" in str(server.hosts)
        elif "httpGet" in probe:
            assert ports[probe["httpGet"]["port"]] == server.http_port
            assert probe["httpGet"]["path"] == ("/readyz" if name == "readinessProbe" else "/livez")
            assert server.http_host == "0.0.0.0"


@pytest.mark.parametrize("file", _WITH_OTPMAIL)
async def test_probes_are_answered(file: str, relay: Relay, certificates: Certificates, tmp_path: Path) -> None:
    """A service with the settings of the container answers each probe, asked as the kubelet asks it."""
    container = otpmail_container(file)
    of_here = relay_settings(relay, certificates, tmp_path / "token")
    given = environment(container) | {"PORT": 0, "HTTP_PORT": 0, "SECRETS_DIR": mounted(tmp_path), "STORE_URL": None}
    async with Service(**given | of_here | {"EMAIL_FROM": "shop@example.org", "STORE_PASSWORD": None}) as service:
        port = service.address.rpartition(":")[2]
        (line,) = service.logged("metrics")
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", (("grpc.enable_http_proxy", 0),)) as channel:
            await service.wait_for_log("relay-up")
            health: Any = health_pb2_grpc.HealthStub(channel)
            for name in ("startupProbe", "livenessProbe", "readinessProbe"):
                probe: dict[str, Any] = container.get(name, {})
                if "grpc" in probe:
                    asked = health_pb2.HealthCheckRequest(service=probe["grpc"].get("service", ""))
                    assert (await health.Check(asked)).status == health_pb2.HealthCheckResponse.SERVING
                elif "httpGet" in probe:
                    url = str(line["url"]).replace("/metrics", probe["httpGet"]["path"])
                    with await asyncio.to_thread(urllib.request.urlopen, url, None, 10) as response:
                        assert response.status == 200


@pytest.mark.parametrize("file", _WITH_OTPMAIL)
def test_a_stop_has_its_time(file: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The pod has time for preStop, for DRAIN_SECONDS and for the last answers before it is killed."""
    before = otpmail_container(file).get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    server = settings_of(file, monkeypatch, tmp_path).server
    seconds = before + server.lameduck_seconds + server.drain_seconds + _DRAIN_MARGIN
    assert pod(file)["terminationGracePeriodSeconds"] >= seconds


@pytest.mark.parametrize("file", _WITH_OTPMAIL)
def test_memory_fits(file: str) -> None:
    """The budget is half of the container's limit, as otpmail takes it by itself, and the largest mail fits into it."""
    container = otpmail_container(file)
    limit = container["resources"]["limits"]["memory"]
    assert container["resources"]["requests"]["memory"] == limit
    octets = int(limit.removesuffix("Mi")) * _MEBI
    budget = int(environment(container).get("MEMORY_MAX_MB", octets // 2 // _MEBI)) * _MEBI
    assert budget == octets // 2
    most = 10485760 + _MEBI  # MAIL_MAX_BYTES and 1 MiB; a quarter of the budget must hold it
    assert budget // 4 >= most


@pytest.mark.parametrize("file", _WITH_OTPMAIL)
def test_no_container_can_do_more_than_it_must(file: str) -> None:
    """The service runs as the user of the image, without privileges or a token of the cluster, on a read-only root."""
    (user,) = re.findall(r"^USER (\d+):", (ROOT / "Dockerfile").read_text("utf-8"), re.MULTILINE)
    container = otpmail_container(file)
    given = pod(file)["securityContext"] | container["securityContext"]
    assert given["runAsNonRoot"] is True
    assert given["runAsUser"] == given["fsGroup"] == int(user)
    assert given["seccompProfile"] == {"type": "RuntimeDefault"}
    assert given["allowPrivilegeEscalation"] is False
    assert given["readOnlyRootFilesystem"] is True
    assert given["capabilities"] == {"drop": ["ALL"]}
    assert pod(file)["automountServiceAccountToken"] is False
    assert container["args"] == ["serve"]


@pytest.mark.parametrize("file", _WITH_OTPMAIL)
def test_no_service_of_the_namespace_is_a_setting(file: str) -> None:
    """Kubernetes adds no variables for Services: for one of the name `email` it would set EMAIL_PORT."""
    assert "EMAIL_PORT" in NAMES
    assert pod(file)["enableServiceLinks"] is False


def test_the_sidecar_is_one() -> None:
    """The sidecar is an init container that keeps running, so that it starts before the application and stops after."""
    (sidecar,) = pod("sidecar.yaml")["initContainers"]
    assert (sidecar["name"], sidecar["restartPolicy"]) == ("otpmail", "Always")
    assert "readinessProbe" not in sidecar


def test_the_documents_find_each_other() -> None:
    """Service, budget, policy and spread select the pods of the Deployment, and name ports that its container has."""
    deployment, service = one("deployment.yaml"), one("service.yaml")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    selectors = [
        deployment["spec"]["selector"]["matchLabels"],
        service["spec"]["selector"],
        one("pod-disruption-budget.yaml")["spec"]["selector"]["matchLabels"],
        one("network-policy.yaml")["spec"]["podSelector"]["matchLabels"],
        *(entry["labelSelector"]["matchLabels"] for entry in pod("deployment.yaml")["topologySpreadConstraints"]),
    ]
    assert all(selector == labels for selector in selectors)
    (container,) = containers(deployment)
    ports = {entry["name"]: entry["containerPort"] for entry in container["ports"]}
    (port,) = service["spec"]["ports"]
    assert (port["port"], port["targetPort"]) == (ports["grpc"], "grpc")
    ingress = one("network-policy.yaml")["spec"]["ingress"]
    assert {entry["port"] for rule in ingress for entry in rule["ports"]} == set(ports)
    annotations = deployment["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(ports["http"])


def test_the_policy_lets_out_what_the_settings_need(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The pods reach names, the relay and the store, at the ports of their settings, and nothing else."""
    settings = settings_of("deployment.yaml", monkeypatch, tmp_path)
    assert settings.store.redis is not None
    egress = one("network-policy.yaml")["spec"]["egress"]
    allowed = {(entry["protocol"], entry["port"]) for rule in egress for entry in rule["ports"]}
    stores = {("TCP", port) for _, port in settings.store.redis.hosts}
    assert allowed == {("UDP", 53), ("TCP", 53), ("TCP", settings.relay.port)} | stores


def test_the_kustomization() -> None:
    """The kustomization has every file but the sidecar's, and a secret by the names of settings and of the volume."""
    kustomization = one("kustomization.yaml")
    files = {path.name for path in KUBERNETES.glob("*.yaml")} - {"kustomization.yaml", "sidecar.yaml"}
    assert set(kustomization["resources"]) == files
    (generated,) = kustomization["secretGenerator"]
    assert {os.path.basename(file) for file in generated["files"]} <= SECRETS  # noqa: PTH119 -- a name of kustomize
    (volume,) = pod("deployment.yaml")["volumes"]
    assert volume["secret"]["secretName"] == generated["name"]
    (image,) = kustomization["images"]
    assert image["name"] == otpmail_container("deployment.yaml")["image"]
