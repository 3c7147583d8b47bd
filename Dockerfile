# syntax=docker/dockerfile:1

# The shop without a database: MERCH__DATABASE__URL and MERCH__AUTH__JWT_SECRET are required.
# With the command `gateway` it is the gateway, which needs MERCH__GATEWAY__BACKENDS.
# docker-compose.yml has an example of both.

FROM rust:1.95-slim-bookworm AS build
WORKDIR /src
COPY . .
# Compiled dependencies stay in the cache from one build to the next. Our own crate must not:
# cargo goes by the times of files, and a fresh clone's may be older than what the cache has
# of another version.
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,target=/src/target,sharing=locked \
    touch src/lib.rs src/main.rs \
    && cargo build --release --locked --bin merch-store \
    && cp target/release/merch-store /usr/local/bin/

# The same C library as above; no shell, no packages, an unprivileged user; and the roots of
# trust that a database with sslmode=verify-full needs.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=busybox:1.37-musl /bin/wget /usr/local/bin/wget
COPY --from=build /usr/local/bin/merch-store /usr/local/bin/merch-store
# By number, so that an orchestrator can tell that it is not root.
USER 65532:65532
WORKDIR /home/nonroot
# Shop and gateway alike, so that the check below is right for both.
ENV MERCH__HTTP__ADDRESS=0.0.0.0:8080 MERCH__GATEWAY__ADDRESS=0.0.0.0:8080
EXPOSE 8080
# Follows the addresses above; give your own check if you change them, or use TLS.
HEALTHCHECK --start-period=60s --start-interval=1s --interval=10s --timeout=3s --retries=3 \
    CMD ["/usr/local/bin/wget", "-q", "-O", "/dev/null", "http://127.0.0.1:8080/health/ready"]
ENTRYPOINT ["/usr/local/bin/merch-store"]
