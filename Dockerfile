# Targets:
#   serve    the server alone, no torch (default)      docker build -t tinybert-serving .
#            docker run -p 8080:8080 -v ./BUNDLE:/bundle:ro tinybert-serving
#   factory  training on CPU                           docker build --target factory -t tinybert-factory .
#            docker run -v .:/work -w /work tinybert-factory run recipes/quickstart.toml
ARG BASE_IMAGE=python:3.11-slim

FROM ${BASE_IMAGE} AS source
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY factory factory
COPY serving serving
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH PIP_NO_CACHE_DIR=1

FROM source AS build-serve
RUN pip install ".[cpu,serve]"

FROM source AS build-factory
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN pip install --extra-index-url ${TORCH_INDEX} ".[build,cpu,serve,demo]"

FROM ${BASE_IMAGE} AS factory
COPY --from=build-factory /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
RUN useradd --create-home factory
USER factory
ENTRYPOINT ["factory"]
CMD ["--help"]

FROM ${BASE_IMAGE} AS serve
COPY --from=build-serve /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 SERVING_HOST=0.0.0.0
RUN useradd --no-create-home serving
USER serving
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/ready', timeout=2)"]
CMD ["python", "-m", "serving", "/bundle"]
