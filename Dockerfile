# Compiles offline against the committed .sqlx; what runs holds the binary and nothing to build with.
FROM rust:1-slim-bookworm AS build
WORKDIR /build
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
COPY . .
ENV SQLX_OFFLINE=true
RUN cargo build --release --locked --package passbook --bin passbook

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates curl \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --no-create-home passbook
COPY --from=build /build/target/release/passbook /usr/local/bin/passbook
USER passbook
# Beyond the loopback address the service wants to be told whether access is controlled: set PASSBOOK_AUTH.
ENV PASSBOOK_LISTEN=0.0.0.0:8080 PASSBOOK_LOG_FORMAT=json
EXPOSE 8080
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s CMD ["curl", "-fsS", "-o", "/dev/null", "http://127.0.0.1:8080/readyz"]
ENTRYPOINT ["passbook"]
CMD ["serve"]
