# Weft: `make demo` shows it, `make test` proves it, `make check` guards it.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help demo test test-cluster images check setup programs deny regenerate

target := $(or $(CARGO_TARGET_DIR),target)
deny := $(firstword $(wildcard $(target)/tools/bin/cargo-deny) $(shell command -v cargo-deny))

help: ## This list
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

demo: ## A shop of real programs in the mesh, shown and checked in 90 seconds
	tests/setup.sh demo
	$(MAKE) --no-print-directory programs
	$(target)/fast/weft demo $(ARGS)

test: ## Every test, from pure functions to real programs in network namespaces
	tests/setup.sh test
	$(MAKE) --no-print-directory programs
	cargo test --workspace --doc
	tests/run.sh $(if $(FULL),60m --include-ignored,30m)

test-cluster: ## On a real Kubernetes, built and started here, or that of KUBECONFIG
	tests/setup.sh $(if $(KUBECONFIG),build,cluster)
	$(if $(FULL),LIMIT=120m) tests/cluster/run $(if $(FULL),--include-ignored) $(ARGS)

images: ## Container images as OCI archives, with their SBOMs, in target/images
	tests/setup.sh build
	charts/images/build release
	charts/images/check release

check: ## Format, lints, architecture, documents, generated code, licences
	tests/setup.sh build
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo clippy --package weft-tests --test cluster -- -D warnings
	RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" cargo doc --workspace --no-deps --document-private-items --quiet
	cargo test --quiet --package weft-proto --test regenerate
	cargo test --quiet --package weft-tests --test architecture
	$(MAKE) --no-print-directory deny

# What the demo and the namespace tests run.
programs:
	cargo build --profile fast --bins

deny:
ifeq ($(deny),)
	@echo "licences and bans not checked: cargo install cargo-deny --locked"
else
	$(deny) check bans licenses sources
endif

regenerate: ## Write generated code and the generated tables of the documents again
	WEFT_REGENERATE=1 cargo test --quiet --package weft-proto --test regenerate
	WEFT_REGENERATE=1 cargo test --quiet --package weft-tests --test architecture
