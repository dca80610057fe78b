# Everything that is done with this repository. `make` alone lists it.
#
# Tests and demo run the development build: its dependencies are compiled with optimisation, it is
# there in minutes on two cores, and overflow checks and debug assertions are on while packets flow.
# Only measurements (`make perf`) take the release build, which costs a link-time optimisation.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help deps build lint test test-unit test-e2e test-soak demo demo-stop perf clean root
.NOTPARALLEL:

TARGET := $(or $(CARGO_TARGET_DIR),target)
# cargo-nextest if it is there: one process per test, and a summary at the end.
RUNNER := $(if $(shell command -v cargo-nextest),nextest run --config-file .ci/nextest.toml,test --no-fail-fast)

help: ## List what can be made
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

deps: ## Install the Debian packages and mount the bpf file system where missing (root)
	@.ci/deps

build: deps ## Build the optimised `dataplane` (target/release/dataplane)
	cargo build --release --locked -p dataplane

lint: deps ## Formatting, and clippy without a single warning
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings

test: root lint test-unit test-e2e ## Lint, then every test: unit, property, and end-to-end over namespaces (root)

test-unit: deps ## Unit and property tests alone
	cargo build --locked --workspace --all-targets
	cargo $(RUNNER) --locked --workspace --exclude tests

test-e2e: root deps ## End-to-end tests alone (root), with --offload on and off; OFFLOAD=on|off, T=name to select
	cargo build --locked --workspace --all-targets
	@trap 'exit 130' INT; failed=; \
	for mode in $(or $(OFFLOAD),on off); do \
		echo "==> End-to-end tests of agents with --offload $$mode"; \
		OFFLOAD=$$mode cargo $(RUNNER) --locked -p tests $(T) || failed+=" $$mode"; \
	done; \
	[ -z "$$failed" ] || { echo "error: tests of agents with --offload failed:$$failed" >&2; exit 1; }

test-soak: root deps ## Fail parts of a mesh at random while pods talk (root); SOAK=minutes (10), SEED=number to repeat
	cargo build --locked -p dataplane
	SOAK=$(or $(SOAK),10) $(if $(SEED),SEED=$(SEED) )cargo test --locked -p tests --test failures soak -- --ignored --nocapture

demo: root deps ## Two clusters, policy, failover, checked step by step (root); KEEP=1 leaves them running
	cargo build --locked -p dataplane -p tests --bins
	@$(TARGET)/debug/demo $(if $(KEEP),--keep)

demo-stop: root ## Remove what `make demo KEEP=1` left running (root)
	@$(TARGET)/debug/demo --stop

perf: root deps ## Measure against kernel, nftables and bare AF_XDP, report in target/perf-report (root); QUICK=1
	cargo build --release --locked -p dataplane -p perf
	$(TARGET)/release/dataplane-perf all --report $(TARGET)/perf-report $(if $(QUICK),--quick)

clean: ## Remove what was built
	cargo clean

root:
	@[ "$$(id -u)" = 0 ] || { echo "error: network namespaces, BPF and AF_XDP need root: run this as root" >&2; exit 1; }
