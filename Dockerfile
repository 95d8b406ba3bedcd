# The base needs Python 3.11 or later with its venv module. Both stages must have the same base: the environment links
# to the base's interpreter. A tag can be moved, so a release gives BASE with its digest: see docs/operations.md.
ARG BASE=python:3.13-slim

FROM ${BASE} AS build
# The pip of another environment fills otpmail's: the image that runs has no pip.
RUN python3 -m venv /opt/build && python3 -m venv --without-pip /opt/otpmail
WORKDIR /build
# Only wheels: pip does not check the hashes of what it needs to build a package from its source.
ENV PIP_NO_CACHE_DIR=1 PIP_ONLY_BINARY=:all:
COPY requirements requirements
RUN /opt/build/bin/pip install --require-hashes -r requirements/build.txt \
 && /opt/build/bin/pip --python /opt/otpmail/bin/python install --compile --require-hashes -r requirements/run.txt
COPY . .
RUN /opt/build/bin/pip wheel --no-deps --no-index --no-build-isolation --wheel-dir wheels . \
 && /opt/build/bin/pip --python /opt/otpmail/bin/python install --compile --no-deps --no-index wheels/*.whl \
 && /opt/build/bin/pip --python /opt/otpmail/bin/python check

FROM ${BASE}
LABEL org.opencontainers.image.title="otpmail" \
      org.opencontainers.image.licenses="MIT"
COPY --from=build /opt/otpmail /opt/otpmail
ENV PATH="/opt/otpmail/bin:${PATH}" \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONFAULTHANDLER=1
# A number lets Kubernetes check runAsNonRoot, and needs no such account in the base.
USER 10001:10001
WORKDIR /
EXPOSE 40700
# The check is a gRPC call, as a caller makes it, and follows the relay; `otpmail health liveness` does not. The interval
# is long since each check starts a Python.
HEALTHCHECK --interval=15s --timeout=5s --start-period=20s --retries=3 CMD ["otpmail", "health"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["otpmail"]
CMD ["serve"]
