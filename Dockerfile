# Any base with Python 3.11 or later and its venv module will do, as long as both stages have the same one: the
# environment holds a link to the base's interpreter, not a copy of it.
ARG BASE=python:3.13-slim

FROM ${BASE} AS build
# The environment is made without pip, and filled by the pip of another one: what runs cannot install.
RUN python3 -m venv /opt/pip && python3 -m venv --without-pip /opt/otpmail
WORKDIR /build
COPY . .
RUN /opt/pip/bin/pip --python /opt/otpmail/bin/python install --no-cache-dir --compile .

FROM ${BASE}
LABEL org.opencontainers.image.title="otpmail" \
      org.opencontainers.image.licenses="MIT"
COPY --from=build /opt/otpmail /opt/otpmail
ENV PATH="/opt/otpmail/bin:${PATH}" \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONFAULTHANDLER=1
# By number, so that Kubernetes' runAsNonRoot can tell, and so that no base needs such an account.
USER 10001:10001
WORKDIR /
EXPOSE 40700
# Asks over gRPC, as a caller would. Each question starts a Python, hence the interval.
HEALTHCHECK --interval=15s --timeout=5s --start-period=20s --retries=3 CMD ["otpmail", "health"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["otpmail"]
CMD ["serve"]
