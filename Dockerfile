# Three images: `server` (with the simulation, and the default), `device` (the base dependencies) and `prometheus`. Nothing here names an
# architecture: docker buildx build --platform linux/amd64,linux/arm64 --target device .
FROM python:3.11-slim AS base
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp \
    FLWR_TELEMETRY_ENABLED=0 FLWR_DISABLE_UPDATE_CHECK=1 RAY_USAGE_STATS_ENABLED=0
# Volumes get the owner of the folder that they are mounted on: those of docker-compose.yml, by domain.
ARG DOMAINS="user-000000 user-000001 user-000002 user-000003 user-000004"
RUN groupadd --gid 10001 graft \
    && useradd --uid 10001 --gid graft --no-create-home --home-dir /tmp graft \
    && install -d -o graft -g graft /field /field/ca /field/server /field/devices /data /device \
    && for domain in $DOMAINS; do install -d -o graft -g graft "/field/devices/$domain" "/data/$domain"; done
# PyPI's torch brings gigabytes of CUDA, for arm64 too; this index has builds for processors alone.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
# Its headers and its own tests, 190 MB, are for those who compile against it.
RUN pip install --index-url "$TORCH_INDEX" torch==2.13.0 \
    && cd "$(python -c 'import torch; print(torch.__path__[0])')" && rm -r include test \
    && find bin -type f ! -name torch_shm_manager -delete
WORKDIR /graft
COPY pyproject.toml ./
COPY .ci/constraints.txt .ci/requirements.py .ci/
# What graft needs has layers of its own: a change of graft does not install it again.
RUN python .ci/requirements.py > base.txt && pip install --constraint .ci/constraints.txt --requirement base.txt

FROM python:3.11-slim AS wheel
WORKDIR /graft
COPY pyproject.toml README.md ./
COPY LICENSE ./
COPY graft graft
COPY server/graft_server server/graft_server
COPY client/graft_client client/graft_client
COPY client/graft_origin.py client/graft_origin.py
COPY simulation/graft_simulation simulation/graft_simulation
RUN pip wheel --no-deps --wheel-dir /wheels .

# Debian's own, so that one registry serves all images.
FROM python:3.11-slim AS prometheus
RUN apt-get update && apt-get install --yes --no-install-recommends prometheus && rm -r /var/lib/apt/lists/* \
    && install -d -o 65534 -g 65534 /prometheus
USER 65534:65534
ENTRYPOINT ["prometheus", "--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/prometheus"]

FROM base AS device
COPY --from=wheel /wheels /wheels
RUN pip install --no-deps /wheels/*.whl
USER 10001:10001
ENTRYPOINT ["graft"]

FROM base AS server
RUN python .ci/requirements.py server simulation report data > more.txt \
    && pip install --constraint .ci/constraints.txt --requirement more.txt
COPY --from=wheel /wheels /wheels
RUN pip install --no-deps /wheels/*.whl
USER 10001:10001
ENTRYPOINT ["graft"]
