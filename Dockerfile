# One image for web, workers and beat; the command decides. Built from the same lock as `make run`.

# The native kernels, compiled for each level of processor: the image itself holds no compiler, and may run on another
# machine than the one that builds it.
FROM python:3.11-slim-bookworm AS kernels
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev
WORKDIR /app
COPY training/__init__.py ./training/
COPY training/native ./training/native
RUN python -m training.native --portable /native

FROM python:3.11-slim-bookworm

# libgomp: torch's threads; procps and curl are not needed: health checks use Python and Celery.
RUN apt-get update \
    && apt-get install -y --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/*

ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /app

# Dependencies first: a change of our code does not install torch again. CUDA=1 takes PyTorch's CUDA build instead.
ARG CUDA=0
COPY requirements ./requirements
COPY scripts/install.py ./scripts/install.py
COPY pyproject.toml LICENSE ./
RUN CUDA=${CUDA} python scripts/install.py
ENV PATH=/app/.venv/bin:$PATH

COPY server ./server
COPY workers ./workers
COPY training ./training
COPY simulation ./simulation
COPY migrations ./migrations
COPY web ./web
COPY --from=kernels /native ./native
ENV WHETSTONE_NATIVE_LIBRARIES=/app/native

# Nothing runs as root; /data holds snapshots, runs and exports and is the only place written to.
RUN useradd --system --uid 10001 --home-dir /data whetstone && mkdir /data && chown whetstone /data
USER whetstone
VOLUME /data
EXPOSE 8000
CMD ["whetstone", "doctor"]
