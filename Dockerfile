# syntax=docker/dockerfile:1
# One image for every role. LANGFUSE_WORKER_ROLE (all, ingestion, export) decides what is loaded, the command
# decides which part of it this container is:
#
#   langfuse-worker code-server -h 0.0.0.0 -p 4000 -m langfuse_export.definitions  role export
#   langfuse-worker code-server -h 0.0.0.0 -p 4001 -m langfuse_ingest.definitions  role ingestion
#   langfuse-worker consume                                                        role ingestion
#   dagster-webserver -h 0.0.0.0 -p 3000 -w workspace.yaml                         any
#   dagster-daemon run -w workspace.yaml                                           any; one of them
#   langfuse-worker export check | export run | queues | dead-letters | ...        once, by hand
#
# It holds no engine: CLICKHOUSE_URL and REDIS_HOST name servers.
ARG PYTHON_IMAGE=python:3.11.14-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
# aws: compute logs in S3; kubernetes: runs as jobs; postgres: Dagster's state. Never `embedded`.
ARG EXTRAS=aws,kubernetes,postgres
WORKDIR /src
RUN python -m venv --without-pip /opt/langfuse
# Without the packages' source pip installs what they need, and that layer stays until a version changes.
COPY pyproject.toml constraints.txt ./
RUN touch README.md && pip --python /opt/langfuse/bin/python install --constraint constraints.txt ".[${EXTRAS}]"
COPY langfuse_worker langfuse_worker
COPY langfuse_export langfuse_export
COPY langfuse_ingest langfuse_ingest
RUN pip --python /opt/langfuse/bin/python install --no-deps --force-reinstall .

FROM ${PYTHON_IMAGE}
# Python's image has its library without bytecode, and this image's user may not write any: every process, and each
# run is one, would compile for a second.
RUN python -m compileall -q -x '/(ensurepip|idlelib|lib2to3|site-packages|tests?)/' /usr/local/lib/python3.*
# Numeric, so that Kubernetes can see that it is not root.
RUN groupadd --gid 10001 langfuse \
    && useradd --uid 10001 --gid langfuse --no-create-home --home-dir /opt/dagster langfuse \
    && install -d -o langfuse -g langfuse /opt/dagster
COPY --from=build /opt/langfuse /opt/langfuse
COPY deploy/dagster.yaml deploy/workspace.yaml /opt/dagster/
COPY --chmod=0755 deploy/healthcheck.py /usr/local/bin/healthcheck
ENV PATH=/opt/langfuse/bin:$PATH \
    DAGSTER_HOME=/opt/dagster \
    # With a volume at /tmp the root file system may be read-only.
    LANGFUSE_HOME=/tmp/langfuse \
    PYTHONUNBUFFERED=1 \
    # As `langfuse-worker start` sets them, see langfuse_worker/start.py.
    DAGSTER_EVENT_BATCH_SIZE=200 \
    DAGSTER_ASSET_BACKFILL_RUN_CHUNK_SIZE=5 \
    DAGSTER_BACKFILL_RETRY_DEFINITION_CHANGED_ERROR=1 \
    PYTHONDONTWRITEBYTECODE=1
WORKDIR /opt/dagster
USER 10001:10001
EXPOSE 3000 3030 4000 4001
# Looks at the container's command and asks that part: /healthz, gRPC, /server_info or the daemon's heartbeats.
HEALTHCHECK --interval=30s --timeout=20s --start-period=60s --retries=3 CMD ["healthcheck"]
# Consumers finish their batch and exports abort their uploads on it.
STOPSIGNAL SIGTERM
CMD ["langfuse-worker", "--help"]
