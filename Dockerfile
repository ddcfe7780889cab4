# One image a process, each with its own dependencies only: docker build --target admission_server .
# Also builds with the classic builder: no BuildKit syntax, no network but the package registry.
ARG BASE_IMAGE=python:3.13-slim

FROM ${BASE_IMAGE} AS build
WORKDIR /build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONDONTWRITEBYTECODE=1
COPY requirements/ requirements/

FROM build AS admission_build
RUN python3 -m venv --without-pip /opt/sluicegate \
 && python3 -m pip --python /opt/sluicegate/bin/python install --quiet --require-hashes --only-binary :all: -r requirements/admission.lock

FROM build AS edge_build
RUN python3 -m venv --without-pip /opt/sluicegate \
 && python3 -m pip --python /opt/sluicegate/bin/python install --quiet --require-hashes --only-binary :all: -r requirements/edge.lock

FROM build AS control_build
RUN python3 -m venv --without-pip /opt/sluicegate \
 && python3 -m pip --python /opt/sluicegate/bin/python install --quiet --require-hashes --only-binary :all: -r requirements/control.lock

# What runs: the base without its installers, a user without a password, nothing to write to but the volumes.
FROM ${BASE_IMAGE} AS runtime
RUN python3 -c "import shutil, site, sysconfig, pathlib; \
roots = {*map(pathlib.Path, site.getsitepackages()), pathlib.Path('/usr/lib/python3/dist-packages'), pathlib.Path(sysconfig.get_path('stdlib'))}; \
[shutil.rmtree(p, ignore_errors=True) if p.is_dir() else p.unlink() \
 for r in roots for n in ('pip', 'pip-*', 'setuptools', 'setuptools-*', 'wheel', 'wheel-*', 'ensurepip') for p in r.glob(n)]" \
 && rm -rf /usr/local/bin/pip* /usr/bin/pip* /usr/share/python-wheels \
 && echo 'sluicegate:x:10001:10001::/nonexistent:/usr/sbin/nologin' >> /etc/passwd \
 && echo 'sluicegate:x:10001:' >> /etc/group \
 && install -d -o 10001 -g 10001 -m 0700 /data /secrets
WORKDIR /app
ENV PATH=/opt/sluicegate/bin:$PATH PYTHONPATH=/app:/app/proto PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
STOPSIGNAL SIGTERM

FROM runtime AS admission_server
COPY --from=admission_build /opt/sluicegate /opt/sluicegate
COPY proto/ proto/
COPY service_runtime/ service_runtime/
COPY admission_server/ admission_server/
# Where the step that makes the secrets mounts the volumes of all processes; a new volume takes its owner from here.
RUN install -d -o 10001 -g 10001 -m 0700 /init/admission /init/edge /init/control /init/operator /init/control_data
USER 10001:10001
ENV SLUICEGATE_ADMISSION_HOST=0.0.0.0 \
    SLUICEGATE_ADMISSION_STATE_DIR=/data \
    SLUICEGATE_ADMISSION_TOKENS_FILE=/secrets/tokens
EXPOSE 50051
HEALTHCHECK --interval=5s --timeout=4s --start-period=10s CMD ["python", "-m", "admission_server.probe"]
CMD ["python", "-m", "admission_server"]

FROM runtime AS edge_proxy
COPY --from=edge_build /opt/sluicegate /opt/sluicegate
COPY proto/ proto/
COPY service_runtime/ service_runtime/
COPY admission_client/ admission_client/
COPY edge_proxy/ edge_proxy/
USER 10001:10001
ENV SLUICEGATE_EDGE_HOST=0.0.0.0 \
    SLUICEGATE_EDGE_ADMISSION_TARGET=admission_server:50051 \
    SLUICEGATE_EDGE_ADMISSION_TOKEN_FILE=/secrets/admission-token \
    SLUICEGATE_EDGE_CONTROL_URL=http://control_api:8081
EXPOSE 8080
HEALTHCHECK --interval=5s --timeout=4s --start-period=10s CMD python -m service_runtime.probe "http://127.0.0.1:${SLUICEGATE_EDGE_PORT:-8080}/health/live"
CMD ["python", "-m", "edge_proxy"]

FROM runtime AS control_api
COPY --from=control_build /opt/sluicegate /opt/sluicegate
COPY proto/ proto/
COPY service_runtime/ service_runtime/
COPY admission_client/ admission_client/
COPY control_api/ control_api/
USER 10001:10001
ENV SLUICEGATE_CONTROL_HOST=0.0.0.0 \
    SLUICEGATE_CONTROL_DATA_DIR=/data \
    SLUICEGATE_CONTROL_ADMISSION_TARGET=admission_server:50051 \
    SLUICEGATE_CONTROL_ADMISSION_TOKEN_FILE=/secrets/admission-token \
    SLUICEGATE_CONTROL_ADMIN_TOKEN_FILE=/secrets/admin-token
EXPOSE 8081
HEALTHCHECK --interval=5s --timeout=4s --start-period=10s CMD python -m service_runtime.probe "http://127.0.0.1:${SLUICEGATE_CONTROL_PORT:-8081}/health/live"
CMD ["python", "-m", "control_api"]

# Not for production: the stand-in for the upstream, and the walk through a running system, for the profile `demo`.
FROM build AS demo_build
RUN python3 -m venv --without-pip /opt/sluicegate \
 && python3 -m pip --python /opt/sluicegate/bin/python install --quiet --require-hashes --only-binary :all: \
    -r requirements/admission.lock -r requirements/control.lock -r requirements/edge.lock

FROM runtime AS demo
COPY --from=demo_build /opt/sluicegate /opt/sluicegate
COPY proto/ proto/
COPY service_runtime/ service_runtime/
COPY admission_client/ admission_client/
COPY admission_server/ admission_server/
COPY upstream_simulator/ upstream_simulator/
COPY demo/ demo/
USER 10001:10001
ENV SLUICEGATE_SIMULATOR_HOST=0.0.0.0
EXPOSE 9999
CMD ["python", "-m", "upstream_simulator"]
