"""Names in the environment that are probably misspelt settings, and all the others that stand there."""

from pathlib import Path

import pytest

from otpmail.settings import misspelt, read_sources
from settings.conftest import Load

_USUAL = """
BASH_ENV BROWSER COLORTERM COLUMNS DBUS_SESSION_BUS_ADDRESS DISPLAY EDITOR ENV GPG_KEY HISTFILE HOME HOSTNAME HOSTTYPE
IFS INPUTRC LANG LANGUAGE LC_ALL LC_CTYPE LESS LINES LOGNAME LS_COLORS MACHTYPE MAIL MAILCHECK MAILPATH MANPATH OLDPWD
OSTYPE PAGER PATH POSIXLY_CORRECT PPID PS1 PWD SHELL SHLVL SSH_AUTH_SOCK SSH_CLIENT SSH_CONNECTION SSH_TTY SUDO_USER
TEMP TERM TMP TMPDIR TZ UID USER VISUAL XDG_CACHE_HOME XDG_CONFIG_HOME XDG_RUNTIME_DIR XDG_SESSION_ID _
CREDENTIALS_DIRECTORY INVOCATION_ID JOURNAL_STREAM LISTEN_FDS LISTEN_PID LOGS_DIRECTORY MAINPID MEMORY_PRESSURE_WATCH
NOTIFY_SOCKET RUNTIME_DIRECTORY STATE_DIRECTORY SYSTEMD_EXEC_PID WATCHDOG_PID WATCHDOG_USEC
CONDA_PREFIX PIP_INDEX_URL POETRY_HOME PYTHONPATH PYTHONUNBUFFERED PYTHON_VERSION UV_CACHE_DIR VIRTUAL_ENV
GOPATH JAVA_HOME LD_LIBRARY_PATH MALLOC_ARENA_MAX NODE_ENV NODE_OPTIONS NPM_TOKEN OMP_NUM_THREADS SSL_CERT_FILE
ALL_PROXY FTP_PROXY HTTPS_PROXY HTTP_PROXY NO_PROXY http_proxy https_proxy no_proxy CURL_CA_BUNDLE REQUESTS_CA_BUNDLE
ALLUSERSPROFILE APPDATA COMSPEC PROCESSOR_ARCHITECTURE PROGRAMFILES SYSTEMROOT WINDIR WSL_DISTRO_NAME
AWS_ACCESS_KEY_ID AWS_DEFAULT_REGION AWS_PROFILE AWS_REGION AWS_SECRET_ACCESS_KEY AWS_WEB_IDENTITY_TOKEN_FILE
AZURE_CLIENT_ID AZURE_TENANT_ID ECS_CONTAINER_METADATA_URI GOOGLE_APPLICATION_CREDENTIALS K_REVISION K_SERVICE
DYNO FLY_APP_NAME FLY_REGION HEROKU_APP_NAME NOMAD_ALLOC_ID NOMAD_PORT_HTTP RAILWAY_ENVIRONMENT RENDER_SERVICE_ID
BUILDKITE CI CI_COMMIT_SHA CI_JOB_TOKEN CIRCLECI GITHUB_ACTIONS GITHUB_SHA GITHUB_TOKEN GITLAB_CI JENKINS_URL RUNNER_OS
COMPOSE_PROJECT_NAME CONTAINER_HOST DOCKER_BUILDKIT DOCKER_HOST KUBECONFIG NODE_NAME NODE_IP POD_IP POD_NAME
POD_NAMESPACE KUBERNETES_PORT_443_TCP_PROTO KUBERNETES_SERVICE_HOST KUBERNETES_SERVICE_PORT_HTTPS
DATABASE_URL DB_HOST DB_PORT MYSQL_HOST PGHOST PGPORT PGUSER POSTGRES_PASSWORD RABBITMQ_URL REDIS_HOST REDIS_PORT
REDIS_URL AMQP_URL MONGO_URL S3_BUCKET SECRET_KEY SENTRY_DSN STATSD_HOST SMTP_HOST SMTP_PORT SMTP_USER SMTP_PASSWORD
DD_AGENT_HOST DD_SERVICE OTEL_EXPORTER_OTLP_ENDPOINT OTEL_LOG_LEVEL OTEL_SERVICE_NAME GRPC_TRACE GRPC_VERBOSITY
GIT_AUTHOR_EMAIL GIT_AUTHOR_NAME GIT_COMMITTER_EMAIL GIT_EDITOR GIT_SSH_COMMAND HTTP_USER_AGENT HTTP_ACCEPT HTTP_COOKIE
APP_ENV APP_KEY APP_NAME APP_URL DEBUG ENVIRONMENT LOG_DIR LOG_FILE LOG_PATH SERVER_NAME SERVER_PORT SERVICE_NAME
WEB_CONCURRENCY CALLER CALLERS QUEUE HTTP TLS OTP STORE MAILER POST PORTS HOSTS COST WORK
"""
"""Names that shells, systemd, containers, clouds, CI and other programs set."""


def _found(load: Load, **environment: str) -> dict[str, str]:
    """Return the misspelt names of an environment with the settings that were meant."""
    load(**environment)
    found = list(misspelt(read_sources()))
    assert all(problem.line.startswith(f"{problem.names[0]}: is in the environment, but ") for problem in found)
    assert all(problem.line.endswith(f"did you mean {problem.names[1]}?") for problem in found)
    return dict(problem.names for problem in found)  # type: ignore[misc]  # they are pairs


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("EMAIL_TTL", "MAIL_TTL"),
        ("EMIAL_HOST", "EMAIL_HOST"),
        ("EMAIL_HSOT", "EMAIL_HOST"),
        ("email_hosts", "EMAIL_HOST"),
        ("OTP_KEY", "OTP_KEYS"),
        ("OTP_DIGTS", "OTP_DIGITS"),
        ("OTP_ATEMPT", "OTP_ATTEMPTS"),
        ("STORE_URI", "STORE_URL"),
        ("LOG_LEVELS", "LOG_LEVEL"),
        ("LOGLEVEL", "LOG_LEVEL"),
        ("WORKER", "WORKERS"),
        ("DRAIN_SECOND", "DRAIN_SECONDS"),
        ("TLS_CERTFILE", "TLS_CERT_FILE"),
        ("CALLER_FILES", "CALLERS_FILE"),
        ("SECRET_DIR", "SECRETS_DIR"),
        ("EMAIL_PASSWORD", "APP_PASSWORD"),
        ("EMAIL_USE_TLS", "EMAIL_SECURITY"),
    ],
)
def test_a_misspelt_name(load: Load, name: str, meant: str) -> None:
    """A name that is one or two edits from a setting is found, and so is another program's name for one of ours."""
    assert _found(load, **{name: "5m"}) == {name.upper(): meant}


def test_names_of_other_programs(load: Load) -> None:
    """No name that stands in usual environments is taken for a misspelt setting."""
    assert _found(load, **dict.fromkeys(_USUAL.split(), "1")) == {}


def test_a_name_like_one_of_a_setting_that_is_set(load: Load, tmp_path: Path) -> None:
    """A name that others use too counts only while the setting is not set; one that begins like ours counts always."""
    shared = {"MAIL_HOST": "mail.example.org", "EMAIL_HOST_USER": "shop", "EMAIL_HOSTS": "mail.example.org"}
    meant = {"MAIL_HOST": "EMAIL_HOST", "EMAIL_HOST_USER": "EMAIL", "EMAIL_HOSTS": "EMAIL_HOST"}
    assert _found(load, **shared) == meant
    (tmp_path / ".env").write_text("EMAIL_HOST=mail.example.org\nEMAIL=shop\nAPP_PASSWORD=secret\n")
    assert _found(load, **shared) == {"EMAIL_HOSTS": "EMAIL_HOST"}


def test_what_kubernetes_sets(load: Load) -> None:
    """The variables of services are no settings, whatever the services are called."""
    names = ("EMAILS", "MAIL", "OTP_KEY", "OTP_URL", "STORE_URI", "WORKER", "LOG_LEVEL")
    injected: dict[str, str] = {}
    for name in names:
        injected |= {
            f"{name}_SERVICE_HOST": "10.0.0.1",
            f"{name}_SERVICE_PORT": "25",
            f"{name}_SERVICE_PORT_SMTP": "25",
            f"{name}_PORT": "tcp://10.0.0.1:25",
            f"{name}_PORT_25_TCP": "tcp://10.0.0.1:25",
            f"{name}_PORT_25_TCP_PROTO": "tcp",
            f"{name}_PORT_25_TCP_PORT": "25",
            f"{name}_PORT_25_TCP_ADDR": "10.0.0.1",
        }
    assert _found(load, **injected) == {}
