# The service: HTTP, prediction and adaptation, without torch.
#   docker build -f docker/service.Dockerfile -t nnpm-service .
ARG BASE_IMAGE=python:3.13-slim

FROM ${BASE_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
# /opt/pip builds and installs, and stays behind; /opt/nnpm is what the image gets.
COPY requirements/build.txt requirements/
RUN python -m venv /opt/pip \
    && /opt/pip/bin/pip install -q --require-hashes -r requirements/build.txt \
    && python -m venv --without-pip /opt/nnpm
# service-media also reads MP4, WebM, AMR and WMA, with 104 MB of FFmpeg.
ARG REQUIREMENTS=service
COPY requirements/${REQUIREMENTS}.txt requirements/
RUN /opt/pip/bin/pip --python /opt/nnpm/bin/python install -q \
    --require-hashes --only-binary :all: -r requirements/${REQUIREMENTS}.txt \
    && find /opt/nnpm -type d -name tests -prune -exec rm -rf {} + \
    # what is for others than who runs a model: 48 MB
    && find /opt/nnpm \( -path '*/onnxruntime/transformers' -o -path '*/onnxruntime/tools' \
        -o -path '*/onnxruntime/quantization' -o -path '*/onnx/backend/test' -o -path '*/numpy/f2py' -o -path '*/numpy/distutils' \
        -o -path '*/sqlalchemy/testing' -o -path '*/zstandard/_cffi.*' \) -prune -exec rm -rf {} +
# A GPU: --build-arg ONNXRUNTIME='onnxruntime-gpu[cuda,cudnn]', over the processor's; without hashes, 2.5 GB.
ARG ONNXRUNTIME=
RUN test -z "${ONNXRUNTIME}" || /opt/pip/bin/pip --python /opt/nnpm/bin/python install -q --only-binary :all: "${ONNXRUNTIME}"
# What changes most comes last. nnpm has links to the two other folders.
COPY pyproject.toml hatch_build.py README.md LICENSE ./
# the wheel holds the open model; the image has all bundles in one place, below
COPY models/open models/open
COPY nnpm nnpm
COPY training training
COPY service service
RUN /opt/pip/bin/pip wheel -q --no-deps --no-index --no-build-isolation -w /wheels . \
    && /opt/pip/bin/pip --python /opt/nnpm/bin/python install -q --no-deps --no-index /wheels/*.whl \
    && rm -r /opt/nnpm/lib/python3*/site-packages/nnpm/models

FROM ${BASE_IMAGE}
# The volumes take their owner from these folders; service and worker share them, hence one number.
RUN groupadd --gid 10001 nnpm \
    && useradd --uid 10001 --gid nnpm --no-create-home --home-dir /tmp --shell /usr/sbin/nologin nnpm \
    && install -d -o nnpm -g nnpm /data /data/models /data/jobs \
    && install -d -o nnpm -g nnpm -m 700 /data/keys \
    && rm -rf /var/cache/apt/* /var/lib/apt/lists/* /usr/share/locale/* /usr/share/man/*
COPY models /opt/nnpm-models
COPY --from=build /opt/nnpm /opt/nnpm
# NNPM_BUNDLED is copied into the registry NNPM_MODELS at the start, as far as it is not there.
# It listens inside the container, which `docker run -p` alone opens: publish on 127.0.0.1, or give it
# keys (NNPM_API_KEYS_FILE); docs/operate/security.md.
ENV PATH=/opt/nnpm/bin:$PATH \
    NNPM_HOST=0.0.0.0 \
    NNPM_INSECURE=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    NNPM_BUNDLED=/opt/nnpm-models \
    NNPM_MODELS=/data/models
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="nnpm-service" \
    org.opencontainers.image.description="Speech emotion recognition over HTTP, with its model" \
    org.opencontainers.image.licenses="Apache-2.0 AND CC-BY-NC-SA-4.0" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}"
USER 10001:10001
WORKDIR /data
EXPOSE 8000
# It ends on SIGTERM by itself, also as process 1: no shell stands between.
ENTRYPOINT ["nnpm"]
CMD ["serve"]
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s CMD ["nnpm", "health"]
