# Builds the service offline against the committed .sqlx. The runtime image contains the binary and no build tools.
#
# cargo-chef compiles the dependencies in a layer of their own. The layer is rebuilt only if a Cargo.toml, Cargo.lock or
# the toolchain changes.
FROM rust:1-slim-bookworm AS chef
WORKDIR /build
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
RUN cargo install cargo-chef --locked --version 0.1.78

# Reduces the sources to recipe.json: the manifests of the workspace and the lock file. The recipe does not change with the
# sources, so the layer of the dependencies stays cached.
FROM chef AS planner
COPY . .
RUN cargo chef prepare --recipe-path recipe.json

FROM chef AS build
COPY --from=planner /build/recipe.json recipe.json
# The package and the profile must match the build below; otherwise Cargo selects other features and compiles again.
# Without --locked, because the recipe replaces the version of each local crate; it still pins every other version.
RUN cargo chef cook --release --package passbook --bin passbook --recipe-path recipe.json
COPY . .
ENV SQLX_OFFLINE=true
# The commit and its date, which `passbook --version` prints: `git log -1 --format='%h %cs'`.
ARG PASSBOOK_BUILD_COMMIT=
RUN cargo build --release --locked --package passbook --bin passbook

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates curl \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --no-create-home passbook
COPY --from=build /build/target/release/passbook /usr/local/bin/passbook
USER passbook
# On an address other than loopback the service requires the setting PASSBOOK_AUTH.
ENV PASSBOOK_LISTEN=0.0.0.0:8080 PASSBOOK_LOG_FORMAT=json
EXPOSE 8080
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s CMD ["curl", "-fsS", "-o", "/dev/null", "http://127.0.0.1:8080/readyz"]
ENTRYPOINT ["passbook"]
CMD ["serve"]
