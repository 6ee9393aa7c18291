# The AI agent of the demo and the tests: a small Debian with a shell, curl and an unmodified kubectl.
ARG BASE
FROM ${BASE}
# Debian's own slim image lacks these; the root file system that `rootfs agent` makes has them.
RUN command -v curl >/dev/null || { apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates curl procps \
    && rm -rf /var/lib/apt/lists/*; }
RUN useradd --create-home --shell /bin/bash --uid 1000 agent
COPY bin /usr/local/bin/
USER 1000:1000
WORKDIR /home/agent
CMD ["idle"]
