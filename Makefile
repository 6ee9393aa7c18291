# Every command of the README. `make help` lists them.
SHELL := /usr/bin/env bash -o pipefail
.DEFAULT_GOAL := help

HOST := $(shell rustc -vV | sed -n 's/^host: //p')
TRIPLE ?= $(HOST)
# What `images` builds for: this machine, and the other architecture where rustup has its standard library.
TRIPLES ?= $(HOST) $(filter-out $(HOST),$(filter x86_64-unknown-linux-gnu aarch64-unknown-linux-gnu,$(shell rustup target list --installed 2>/dev/null)))
TARGET_DIR ?= target
RELEASE := $(TARGET_DIR)/$(TRIPLE)/release
TAG ?= dev
KUBECONFIG ?= $(CURDIR)/target/kind/kubeconfig
export KUBECONFIG

# Static binaries for FROM scratch; no path of this machine in them, so that a commit gives the same bytes anywhere.
CARGO_HOME_DIR := $(or $(CARGO_HOME),$(HOME)/.cargo)
ifneq ($(TRIPLE),$(HOST))
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER ?= aarch64-linux-gnu-gcc
export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_LINKER ?= x86_64-linux-gnu-gcc
endif
RELEASE_FLAGS := -C target-feature=+crt-static --remap-path-prefix=$(CARGO_HOME_DIR)=/cargo
WARNINGS := -D warnings

.PHONY: help
help: ## Show the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

.PHONY: demo
demo: image kind-up deploy ## The main job in one command: a cluster, an injected agent, its calls, the joined records
	@e2e/demo

.PHONY: build
build: ## Static release binaries in target/<triple>/release/, for TRIPLE (this machine's)
	@tools/ensure cargo $(TRIPLE)
	@echo "building release binaries for $(TRIPLE) (some minutes at first)"
	RUSTFLAGS="$(RELEASE_FLAGS)" cargo build --release --locked --target $(TRIPLE) --target-dir $(TARGET_DIR) \
		-p tollgate-sidecar -p tollgate-webhook

.PHONY: image
image: build ## Both images for TRIPLE as archives in target/images/<architecture>/, the same digest from the same commit
	@tools/ensure file git
	@for name in tollgate-sidecar tollgate-webhook; do \
		images/build $(RELEASE)/$$name $$name:$(TAG) target/images || exit 1; done

.PHONY: images
images: ## The images for amd64 and arm64, where the toolchain has both (`rustup target add`)
	@for triple in $(TRIPLES); do $(MAKE) --no-print-directory image TRIPLE=$$triple || exit 1; done

.PHONY: sbom
sbom: ## What both binaries are made of, as CycloneDX in target/sbom/
	@tools/ensure cargo cargo-cyclonedx git jq
	tools/sbom target/sbom

.PHONY: kind-up kind-down
kind-up: ## A kind cluster (K8S_VERSION=1.37 or 1.33); kubeconfig and audit log in target/kind/
	@e2e/kind/up
kind-down: ## Remove the cluster and all that kind-up made
	@e2e/kind/down

.PHONY: deploy
deploy: image ## Load the images and apply the manifests to the cluster of KUBECONFIG (or target/kind/kubeconfig)
	@manifests/deploy

.PHONY: manifests
manifests: ## Render manifests/install.yaml
	@manifests/render

.PHONY: check
check: ## fmt, clippy, doc, deny, shellcheck
	@tools/ensure cargo cc cargo-deny shellcheck
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- $(WARNINGS)
	RUSTDOCFLAGS="$(WARNINGS)" cargo doc --workspace --no-deps --locked --quiet
	@cargo fetch --locked --quiet
	cargo deny --offline --log-level error check bans licenses sources
	tools/shellcheck

.PHONY: test
test: test-unit fuzz kind-e2e ## Every test: unit, in process, fuzz for some seconds, real API server and kubelet

.PHONY: test-unit
test-unit: ## Unit and in-process tests
	@tools/ensure cargo cc openssl
	cargo test --workspace --exclude tollgate-e2e --exclude tollgate-bench-calls --locked

.PHONY: fuzz
FUZZ_SECONDS ?= 10
fuzz: ## Each fuzz target for FUZZ_SECONDS (10)
	@tools/ensure nightly cargo-fuzz
	sidecar/fuzz/run $(FUZZ_SECONDS)
	webhook/fuzz/run $(FUZZ_SECONDS)

.PHONY: kind-e2e
kind-e2e: kind-up deploy ## The suite of e2e/tests/ on the cluster of KUBECONFIG (or target/kind/kubeconfig)
	@tools/ensure jq openssl
	manifests/render --check
	@e2e/kind/agent-image
	cargo test -p tollgate-e2e --locked --no-fail-fast
	e2e/without-webhook cargo test -p tollgate-e2e --locked --test policies
	@e2e/static-policies
	@e2e/cert-manager/run
	@e2e/operations

.PHONY: bench bench-reviews bench-calls bench-verify
bench: bench-reviews bench-calls bench-verify ## Numbers, on this machine and the cluster of KUBECONFIG; no part of any test
bench-reviews: build ## What a review costs the webhook (bench/reviews)
	cargo run --quiet --release --locked -p tollgate-bench-reviews -- --webhook $(RELEASE)/tollgate-webhook
KUBECTL ?= target/kind/kubectl
bench-calls: build ## What a call costs, beside a direct call and kubectl proxy (bench/calls)
	cargo run --quiet --locked -p tollgate-bench-calls -- $(RELEASE)/tollgate-sidecar $(KUBECTL)
bench-verify: build ## How fast long records are verified, and in how much memory (bench/verify)
	cargo run --quiet --release --locked -p tollgate-bench-verify -- --sidecar $(RELEASE)/tollgate-sidecar
