# Targets:
#   serve-cpu  the server alone (default)           docker build -t tinybert-serving .
#              docker run -p 8080:8080 -v ./BUNDLE:/bundle:ro tinybert-serving
#              with the bundle inside it            docker build --build-context bundle=BUNDLE -t intents .
#   serve-gpu  the same on CUDA                     docker build --target serve-gpu -t tinybert-serving-gpu .
#   factory    training on CPU                      docker build --target factory -t tinybert-factory .
#              docker run -v .:/work tinybert-factory run recipes/quickstart.toml
# docs/deploying.md tells more, and what was tried.
ARG BASE_IMAGE=python:3.11-slim
ARG CUDA_IMAGE=nvidia/cuda:13.0.1-cudnn-runtime-ubuntu24.04

# Replaced by `--build-context bundle=DIRECTORY`; else /bundle is empty, to be mounted.
FROM scratch AS bundle

FROM ${BASE_IMAGE} AS packages-cpu
WORKDIR /source
COPY deploy/image/requirements.py deploy/image/server_packages.sh deploy/image/
COPY pyproject.toml ./
RUN --mount=type=cache,target=/root/.cache/pip deploy/image/server_packages.sh cpu

FROM ${CUDA_IMAGE} AS python-gpu
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3 \
    && rm -rf /var/lib/apt/lists/*

FROM python-gpu AS packages-gpu
RUN apt-get update && apt-get install --yes --no-install-recommends python3-pip python3-venv
WORKDIR /source
COPY deploy/image/requirements.py deploy/image/server_packages.sh deploy/image/
COPY pyproject.toml ./
RUN --mount=type=cache,target=/root/.cache/pip deploy/image/server_packages.sh gpu

# The server's code with byte code, readable by every user whatever the checkout's modes are.
FROM ${BASE_IMAGE} AS code-cpu
COPY serving /app/serving
RUN python3 -m compileall -q --invalidation-mode unchecked-hash /app && chmod -R a+rX,go-w /app

FROM python-gpu AS code-gpu
COPY serving /app/serving
RUN python3 -m compileall -q --invalidation-mode unchecked-hash /app && chmod -R a+rX,go-w /app

FROM ${BASE_IMAGE} AS factory
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
WORKDIR /source
COPY deploy/image/requirements.py deploy/image/
COPY pyproject.toml ./
RUN --mount=type=cache,target=/root/.cache/pip python3 -m venv /opt/venv \
    && python3 deploy/image/requirements.py pyproject.toml factory build cpu serve demo \
        > /tmp/requirements.txt \
    && /opt/venv/bin/pip install --extra-index-url ${TORCH_INDEX} -r /tmp/requirements.txt
COPY README.md LICENSE ./
COPY factory factory
COPY serving serving
RUN --mount=type=cache,target=/root/.cache/pip /opt/venv/bin/pip install --no-deps .
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 HOME=/work
WORKDIR /work
RUN chown 10001:10001 /work
USER 10001:10001
ENTRYPOINT ["factory"]
CMD ["--help"]

FROM python-gpu AS serve-gpu
COPY --from=packages-gpu /opt/venv /opt/venv
COPY --from=code-gpu /app /app
COPY --from=bundle --chmod=0555 / /bundle/
ENV PATH=/opt/venv/bin:$PATH PYTHONPATH=/app PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    ORT_DISABLE_TELEMETRY=1 SERVING_HOST=0.0.0.0 SERVING_PROVIDER=cuda
USER 10001:10001
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import http.client as h, os, sys; c = h.HTTPConnection('127.0.0.1', int(os.environ.get('SERVING_PORT', '8080')), timeout=2); c.request('GET', '/ready'); sys.exit(c.getresponse().status != 200)"]
# No init: the server handles signals as process 1, and waits for the only children it ever has.
ENTRYPOINT ["python", "-m", "serving"]
CMD ["/bundle"]
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="tinybert-serving" \
    org.opencontainers.image.description="HTTP server for one text classification bundle, on CUDA" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}"

FROM ${BASE_IMAGE} AS serve-cpu
COPY --from=packages-cpu /opt/venv /opt/venv
COPY --from=code-cpu /app /app
COPY --from=bundle --chmod=0555 / /bundle/
ENV PATH=/opt/venv/bin:$PATH PYTHONPATH=/app PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    ORT_DISABLE_TELEMETRY=1 SERVING_HOST=0.0.0.0
USER 10001:10001
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 \
    CMD ["python", "-c", "import http.client as h, os, sys; c = h.HTTPConnection('127.0.0.1', int(os.environ.get('SERVING_PORT', '8080')), timeout=2); c.request('GET', '/ready'); sys.exit(c.getresponse().status != 200)"]
# No init: the server handles signals as process 1, and waits for the only children it ever has.
ENTRYPOINT ["python", "-m", "serving"]
CMD ["/bundle"]
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="tinybert-serving" \
    org.opencontainers.image.description="HTTP server for one text classification bundle" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}"
