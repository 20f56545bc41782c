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
# Without line numbers, which are three quarters of the program; backtraces keep the names of functions.
RUN cargo build --release --locked --package passbook --bin passbook \
    && strip --strip-debug target/release/passbook

# The runtime has the programs of Postgres, because without PASSBOOK_DATABASE_URL Passbook starts a Postgres of its own. Its package
# must not create a cluster.
FROM debian:bookworm-slim
RUN mkdir -p /etc/postgresql-common/createcluster.d \
    && echo "create_main_cluster = false" > /etc/postgresql-common/createcluster.d/passbook.conf \
    && apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates curl postgresql tini \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --system --gid 10001 passbook \
    && useradd --system --uid 10001 --gid 10001 --no-create-home passbook \
    && install --directory --owner=passbook --group=passbook --mode=0700 /var/lib/passbook
COPY --from=build /build/target/release/passbook /usr/local/bin/passbook
COPY --chmod=0755 ops/image/entrypoint /usr/local/bin/passbook-entrypoint
USER 10001:10001
# The data of the embedded Postgres. A volume outlives the container.
VOLUME /var/lib/passbook
# On an address other than loopback the service requires a setting of access control; see ops/image/entrypoint.
ENV PASSBOOK_LISTEN=0.0.0.0:8080 PASSBOOK_DATA_DIR=/var/lib/passbook
EXPOSE 8080
# Time for the requests in progress and for the shutdown of Postgres: docker stop --time 60.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=3s --start-period=60s CMD ["curl", "-fsS", "-o", "/dev/null", "http://127.0.0.1:8080/readyz"]
# tini collects the processes that a crashed Postgres leaves behind.
ENTRYPOINT ["tini", "--", "passbook-entrypoint"]
CMD ["serve"]
