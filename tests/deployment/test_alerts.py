"""deploy/alerts.yaml: each rule fires for its fault, and asks for what the service exports."""

from __future__ import annotations

import os
import re
import subprocess
from typing import TYPE_CHECKING

import pytest
from prometheus_client import generate_latest

from calls import metrics_text
from deployment.files import DEPLOY, ROOT, Document, documents
from otpmail.supervisor.metrics import MergedMetrics
from service import Service, relay_settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from relay import Certificates, Relay

FILE = DEPLOY / "alerts.yaml"
_SELECTOR = re.compile(r"\b(otpmail_\w+|process_\w+|up)\b(?:\{([^}]*)\})?")
_MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')
_OF_THE_SCRAPE = {"job", "instance"}


def promtool() -> Path:
    """Return the program; in CI it must be there."""
    program = ROOT / os.environ.get("OTPMAIL_SERVERS", ".servers") / "prometheus/usr/bin/promtool"
    if not program.exists():
        missing = "promtool is not there: run scripts/install-servers as root"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    return program


def rules() -> list[Document]:
    """Return the rules."""
    (document,) = documents(FILE)
    return [rule for group in document["groups"] for rule in group["rules"]]


def test_each_rule_fires_for_its_fault() -> None:
    """The rules are right to promtool, and they fire for the series of each fault and not for those of health."""
    tests = ROOT / "tests/deployment/alerts.yaml"
    for arguments in (("check", "rules", FILE), ("test", "rules", tests)):
        ran = subprocess.run([promtool(), *arguments], capture_output=True, text=True, check=False, timeout=60)
        assert ran.returncode == 0, ran.stdout + ran.stderr
    cases = [case["alertname"] for group in documents(tests)[0]["tests"] for case in group["alert_rule_test"]]
    assert {rule["alert"] for rule in rules()} == {name for name in cases if cases.count(name) >= 2}


@pytest.fixture
async def service(relay: Relay, certificates: Certificates, tmp_path: Path) -> AsyncIterator[Service]:
    """Start a service with TLS and metrics."""
    certificate = tmp_path / "both.pem"
    certificate.write_bytes(certificates.authority.issue_cert("localhost").private_key_and_cert_chain_pem.bytes())
    settings = relay_settings(relay, certificates, tmp_path / "token")
    async with Service(**settings, HTTP_PORT=0, TLS_CERT_FILE=certificate) as service:
        await service.wait_for_log("relay-up")
        yield service


async def test_the_service_exports_what_the_rules_ask_for(service: Service) -> None:
    """Each metric, label and value that a rule names is one of the service, so that no rule is silent for ever."""
    supervisor = MergedMetrics(lambda: 2)
    supervisor.refresh([])
    text = await metrics_text(service) + generate_latest(supervisor.registry).decode()
    series: dict[str, list[dict[str, str]]] = {name: [] for name in re.findall(r"^# TYPE (\S+)", text, re.MULTILINE)}
    for name, labels in re.findall(r"^(\w+)\{(.*)\} ", text, re.MULTILINE):
        series.setdefault(name, []).append(dict(re.findall(r'(\w+)="([^"]*)"', labels)))
    for rule in rules():
        selectors = _SELECTOR.findall(rule["expr"])
        assert selectors, rule["alert"]
        for name, matchers in selectors:
            assert name in series or name == "up", (rule["alert"], name)
            for label, operator, value in _MATCHER.findall(matchers):
                if label not in _OF_THE_SCRAPE:
                    shown = {labels[label] for labels in series[name]}
                    assert set(value.split("|") if "~" in operator else [value]) <= shown, (rule["alert"], name, label)
