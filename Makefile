# The ways in. `make` alone says what there is.

PROFILE ?= release

.DEFAULT_GOAL := help
.PHONY: help run test test-partitions chaos fuzz lint bench bench-grow bench-scale replay prepare openapi

help: ## Say what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-15s %s\n", $$1, $$2 }'

run: ## Install what is missing, then serve at http://127.0.0.1:8080 (PROFILE=dev compiles faster)
	@scripts/setup
	cargo run --profile $(PROFILE) -- serve

test: ## Every test, against a real Postgres
	@scripts/setup --test
	cargo test --workspace
	PASSBOOK_TEST_PARTITIONS=4 cargo test --workspace --test api -- $(OVER_PARTITIONS)

# What meets on several accounts. The whole suite over partitions: make test-partitions PARTITIONS=16
OVER_PARTITIONS = account_view:: idempotency:: outage:: races:: transfers:: two_servers::
PARTITIONS ?= 4

test-partitions: ## The whole API suite over several partitions (PARTITIONS=16)
	@scripts/setup --test
	PASSBOOK_TEST_PARTITIONS=$(PARTITIONS) cargo test --workspace --test api

chaos: ## Kill, freeze, cut and fill up for half an hour, and check the promise (PASSBOOK_CHAOS_SEED, …_ROUNDS, …)
	@scripts/setup --test
	PASSBOOK_CHAOS_ROUNDS=$${PASSBOOK_CHAOS_ROUNDS:-12} PASSBOOK_CHAOS_TIMES=$${PASSBOOK_CHAOS_TIMES:-2} \
	PASSBOOK_CHAOS_LANES=$${PASSBOOK_CHAOS_LANES:-2} PASSBOOK_CHAOS_FREEZE_MS=$${PASSBOOK_CHAOS_FREEZE_MS:-5000} \
	cargo test --workspace --test chaos -- --nocapture

fuzz: ## Send more of what is hostile than `make test` does, in about an hour (PASSBOOK_SCHEMATHESIS_CASES, PROPTEST_CASES, …)
	@scripts/setup --test
	PROPTEST_CASES=$${PROPTEST_CASES:-200000} cargo test --workspace --lib whatever_
	PASSBOOK_SCHEMATHESIS_CASES=$${PASSBOOK_SCHEMATHESIS_CASES:-20000} \
	PASSBOOK_SCHEMATHESIS_SEED=$${PASSBOOK_SCHEMATHESIS_SEED:-$$(date +%j)} \
	PASSBOOK_HOSTILE_CONNECTIONS=$${PASSBOOK_HOSTILE_CONNECTIONS:-10000} \
	cargo test --workspace --test cli -- --nocapture --test-threads 1 conforming:: hostile::

lint: ## Format, clippy, licences and sources, .sqlx, the OpenAPI document and ops/
	@scripts/setup --lint
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo deny check bans licenses sources
	scripts/prepare --check
	scripts/lint-openapi
	scripts/lint-ops

bench: ## Measure a fresh Passbook beside bare Postgres and a peer, and write docs/benchmarks.* (ARGS="--seconds 5")
	@scripts/setup --bench
	cargo build --release --package passbook
	cargo build --release --manifest-path bench/peers/cqrs-es/Cargo.toml
	cargo run --release --package bench -- run $(ARGS)

bench-grow: ## Measure what a million accounts and ten million events change, in half an hour (ARGS="--events 1000000")
	@scripts/setup --bench
	cargo build --release --package passbook
	cargo run --release --package bench -- grow $(ARGS)

bench-scale: ## Measure what instances behind HAProxy, partitions and traces change, in twelve minutes (ARGS="--rounds 5")
	@scripts/setup --bench
	cargo build --release --package passbook
	cargo run --release --package bench -- scale $(ARGS)

replay: ## Send recorded movements to a running service: make replay FILE=movements.csv.gz
	@test -n "$(FILE)" || { echo "make replay needs a file: make replay FILE=movements.csv.gz" >&2; exit 2; }
	cargo run --release --package bench -- replay "$(FILE)"

prepare: ## Rewrite .sqlx after a query or a migration has changed
	@scripts/setup
	scripts/prepare

openapi: ## Rewrite openapi/openapi.json after a route has changed
	@scripts/setup
	cargo run --quiet --profile $(PROFILE) -- openapi > openapi/openapi.json.new
	mv openapi/openapi.json.new openapi/openapi.json
