# The worker: takes adaptation jobs from the store; it can also serve, as one container.
#   docker build -f docker/worker.Dockerfile -t nnpm-worker .
# With torch it can train, too: --build-arg REQUIREMENTS=train
ARG BASE_IMAGE=python:3.13-slim

FROM ${BASE_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
# /opt/pip builds and installs, and stays behind; /opt/nnpm is what the image gets.
COPY requirements/build.txt requirements/
RUN python -m venv /opt/pip \
    && /opt/pip/bin/pip install -q --require-hashes -r requirements/build.txt \
    && python -m venv --without-pip /opt/nnpm
ARG REQUIREMENTS=service-media
COPY requirements/${REQUIREMENTS}.txt requirements/
RUN /opt/pip/bin/pip --python /opt/nnpm/bin/python install -q \
    --require-hashes --only-binary :all: -r requirements/${REQUIREMENTS}.txt
# For training, torch comes last and without hashes: its CPU and CUDA builds differ. All else that it
# needs is there by now. CUDA: --build-arg TORCH_INDEX= takes the plain package, several gigabytes.
# Otherwise, what is for others than who runs a model goes, as in the service's image.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG TORCH_VERSION=2.13.0
RUN if [ "${REQUIREMENTS}" = train ]; then \
        /opt/pip/bin/pip --python /opt/nnpm/bin/python install -q \
            ${TORCH_INDEX:+--index-url} ${TORCH_INDEX} "torch==${TORCH_VERSION}"; \
    else \
        find /opt/nnpm \( -name tests -o -path '*/onnxruntime/transformers' \
            -o -path '*/onnxruntime/tools' -o -path '*/onnxruntime/quantization' \
            -o -path '*/onnx/backend/test' -o -path '*/numpy/f2py' -o -path '*/numpy/distutils' \
            -o -path '*/sqlalchemy/testing' -o -path '*/zstandard/_cffi.*' \) \
            -prune -exec rm -rf {} +; \
    fi
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
ENV PATH=/opt/nnpm/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    NUMBA_CACHE_DIR=/tmp/numba \
    NNPM_BUNDLED=/opt/nnpm-models \
    NNPM_MODELS=/data/models
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="nnpm-worker" \
    org.opencontainers.image.description="Adaptation of nnpm's speech emotion recognition to new languages" \
    org.opencontainers.image.licenses="Apache-2.0 AND CC-BY-NC-SA-4.0" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}"
USER 10001:10001
WORKDIR /data
# It ends on SIGTERM by itself, also as process 1; the job under way goes back into the queue.
ENTRYPOINT ["nnpm"]
CMD ["worker", "--heartbeat", "/tmp/nnpm-worker"]
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s \
    CMD ["nnpm", "health", "--heartbeat", "/tmp/nnpm-worker"]
