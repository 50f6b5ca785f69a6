# syntax=docker/dockerfile:1
# One image for every process: the command is a name of the Procfile (web, worker, media, webhooks, sweeper, release).
# docs/deployment.md says how it is run, and how it is tested without Docker.

FROM python:3.13-slim-bookworm AS build
WORKDIR /src
COPY requirements.txt ./
COPY deploy/image/ deploy/image/
RUN deploy/image/install /opt/reelworks

FROM python:3.13-slim-bookworm
# A font for the visible label of generated videos; setpriv and prlimit, by which ffmpeg is started, are in the base.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends fonts-dejavu-core \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --system --gid 10001 reelworks \
    && useradd --system --uid 10001 --gid 10001 --home-dir /var/lib/reelworks --shell /usr/sbin/nologin reelworks \
    && install -d -o reelworks -g reelworks -m 0750 /var/lib/reelworks /srv/reelworks/storage
COPY --from=build /opt/reelworks /opt/reelworks
WORKDIR /app
COPY manage.py Procfile ./
COPY config/ config/
COPY media_pipeline/ media_pipeline/
COPY providers/ providers/
COPY static/ static/
COPY templates/ templates/
COPY video/ video/
COPY deploy/run deploy/run
COPY deploy/image/healthy deploy/image/healthy
RUN /opt/reelworks/bin/python -m compileall -q config media_pipeline providers video
ENV VENV_PATH=/opt/reelworks \
    REELWORKS_HOME=/var/lib/reelworks \
    STORAGE_LOCAL_PATH=/srv/reelworks/storage \
    PYTHONUNBUFFERED=1 \
    HOST=0.0.0.0 \
    PORT=8000
USER 10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s CMD ["deploy/image/healthy"]
ENTRYPOINT ["deploy/run"]
CMD ["web"]
