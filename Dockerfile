# The graft command in a container; Ray needs shared memory, see docker-compose.yml.
FROM python:3.11-slim
WORKDIR /graft
COPY pyproject.toml README.md ./
COPY graft graft
COPY server server
COPY client client
COPY simulation simulation
RUN pip install --no-cache-dir .
ENV FLWR_TELEMETRY_ENABLED=0 FLWR_DISABLE_UPDATE_CHECK=1 RAY_USAGE_STATS_ENABLED=0
ENTRYPOINT ["graft"]
