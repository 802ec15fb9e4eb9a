# beam_ray and the locked versions of all that it needs, for Ray's head and workers and for jobs.
#   docker build -t registry.example.com/beam-ray:0.2 .
#
# The image has no keys and no store in it: both come from the environment. It runs as user 10001,
# or as any other user without a name and a home, with a read-only root and a writable /tmp/ray
# (docs/kubernetes.md, "What a container needs").

FROM python:3.11-slim-bookworm AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /build
COPY requirements.txt pyproject.toml README.md LICENSE ./
COPY beam_ray ./beam_ray
# no package with a compiler's needs is in the lock file, so nothing is built here but beam_ray itself
RUN python -m venv /opt/beam-ray \
 && /opt/beam-ray/bin/pip install --no-deps --require-hashes -r requirements.txt \
 && /opt/beam-ray/bin/pip install --no-deps --no-build-isolation .

FROM python:3.11-slim-bookworm
# KubeRay's health checks call wget
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends wget \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --uid 10001 --user-group --no-create-home --home-dir /nonexistent beam-ray
COPY --from=build /opt/beam-ray /opt/beam-ray
WORKDIR /app
COPY jobs ./jobs
COPY configs ./configs
ENV PATH=/opt/beam-ray/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    RAY_USAGE_STATS_ENABLED=0
USER 10001:10001
CMD ["beam-ray", "--help"]
