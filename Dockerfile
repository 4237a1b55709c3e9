# syntax=docker/dockerfile:1
#
#   docker build -t letta .                     the server with tools for agents (Debian)
#   docker build -t letta --target static .     the server alone (nothing else in it)
#
# Both keep what must survive in /home/letta, so that is where a volume goes
# (there is no VOLUME line: Railway refuses it). Both run as the user letta
# (10001). Agents that install packages need root: docker run --user root …

# Every version of what is not ours, in one place.
ARG RUST_IMAGE=docker.io/library/rust:1.95-slim-trixie
ARG DEBIAN_IMAGE=docker.io/library/debian:trixie-slim

# The binary: compiled on the builder's own architecture for the one that is
# asked for. With BINARY=dist it is the one that scripts/build-static left in
# dist/, as in a release: then the image holds the very file that was checked,
# and RUST_IMAGE can be the Debian one.
FROM --platform=$BUILDPLATFORM ${RUST_IMAGE} AS binary
ARG TARGETARCH
ARG BINARY=build
WORKDIR /src
RUN [ "$BINARY" = dist ] || { apt-get update \
 && apt-get install -y --no-install-recommends binutils make musl-tools \
    $([ "$(uname -m)-$TARGETARCH" != x86_64-arm64 ] || echo gcc-aarch64-linux-gnu libc6-dev-arm64-cross) \
 && rm -rf /var/lib/apt/lists/*; }
# The last pattern may match nothing.
COPY Cargo.toml Cargo.lock dist* ./dist/
COPY local-cloud local-cloud
COPY benches benches
COPY scripts/build-static scripts/link-without-unwinding scripts/
COPY src src
RUN case "$TARGETARCH" in arm64) arch=aarch64 ;; *) arch=x86_64 ;; esac \
 && mv dist/Cargo.* . \
 && { [ "$BINARY" = dist ] || scripts/build-static "$arch"; } \
 && mv "dist/letta-$arch-unknown-linux-musl" /letta

# What an image of nothing needs: a home with its owner, a name for it, /tmp.
FROM ${DEBIAN_IMAGE} AS skeleton
RUN install -d -o 10001 -g 10001 -m 0700 /skeleton/home/letta \
 && install -d -m 1777 /skeleton/tmp \
 && install -d /skeleton/etc \
 && echo 'letta:x:10001:10001::/home/letta:/bin/sh' >/skeleton/etc/passwd \
 && echo 'letta:x:10001:' >/skeleton/etc/group

FROM scratch AS static
LABEL org.opencontainers.image.title="letta" \
      org.opencontainers.image.description="Always-on remote environment for Letta Code agents" \
      org.opencontainers.image.source="https://github.com/letta-ai/letta-server" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=skeleton /skeleton /
COPY --from=binary --chmod=0755 /letta /usr/local/bin/letta
ENV HOME=/home/letta PATH=/usr/local/bin:/usr/bin:/bin PORT=8080
USER 10001:10001
WORKDIR /home/letta
EXPOSE 8080
HEALTHCHECK --interval=30s --timeout=3s --start-period=10s CMD ["/usr/local/bin/letta", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/letta"]
CMD ["server"]

# For platforms whose volumes belong to root: --target tools-root.
FROM ${DEBIAN_IMAGE} AS tools-root
LABEL org.opencontainers.image.title="letta" \
      org.opencontainers.image.description="Always-on remote environment for Letta Code agents, with tools" \
      org.opencontainers.image.source="https://github.com/letta-ai/letta-server" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN export DEBIAN_FRONTEND=noninteractive && apt-get update \
 && apt-get install -y --no-install-recommends \
    bash ca-certificates curl git jq openssh-client procps python3 \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/apt /var/log/dpkg.log \
 && useradd --uid 10001 --user-group --no-create-home --shell /bin/bash letta \
 && install -d -o letta -g letta -m 0700 /home/letta
COPY --from=binary --chmod=0755 /letta /usr/local/bin/letta
RUN ["/usr/local/bin/letta", "--version"]
ENV HOME=/home/letta PORT=8080
WORKDIR /home/letta
EXPOSE 8080
HEALTHCHECK --interval=30s --timeout=3s --start-period=10s CMD ["/usr/local/bin/letta", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/letta"]
CMD ["server"]

FROM tools-root AS tools
USER 10001:10001
