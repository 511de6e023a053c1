# Every target is at most three lines; what is longer lives in a script beside what it serves.
.DEFAULT_GOAL := help
.PHONY: help deps build demo test chaos machine gpu sim soak fuzz lint fmt bench generated ci clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-10s %s\n", $$1, $$2}'

deps: ## install what building and testing need, where it is missing (apt, PyPI)
	@e2e/deps.sh

build: ## build the binary, release profile
	cargo build --release --locked --package clawbernetes

demo: ## a one-machine cluster with the examples in it; KEEP=1 leaves it running until Ctrl-C
	@e2e/deps.sh build
	@KEEP=$(KEEP) e2e/demo.sh

test: ## every test; those that need root, kubectl or Python say so when they cannot run
	@e2e/deps.sh
	cargo test --locked --workspace --no-fail-fast

chaos: ## KILLS=500 random kills of what keeps fifty pods, SEED=n for an earlier run's; 200 pods that leave nothing
	CHAOS_KILLS=$(or $(KILLS),500) $(if $(SEED),CHAOS_SEED=$(SEED)) cargo test --locked --workspace --test chaos --test leaks -- --nocapture

machine: ## what a Debian of its own in qemu makes of containers, with and without root; STORIES="node user" for some of it
	@e2e/machine/run.sh $(STORIES)

gpu: ## all that wants a real GPU: the driver's inventory, a pod, a kernel job, every kernel, qualification, figures beside PyTorch's
	@e2e/deps.sh build && e2e/gpu.sh

sim: ## simulated clusters with faults; SEEDS=1000 of them, or the one that SEED=n names
	SIM_SEEDS=$(or $(SEEDS),1000) $(if $(SEED),SIM_SEED=$(SEED)) cargo test --locked --workspace --test simulation every_seed -- --nocapture

soak: ## a server through half an hour of kills, cuts and lost history; SOAK_SECONDS=n for another time
	SOAK_SECONDS=$(or $(SOAK_SECONDS),1800) cargo test --locked --workspace --test soak -- --nocapture

fuzz: ## libFuzzer on the decoder that TARGET names, for SECONDS=60; wants nightly and cargo-fuzz
	mkdir -p e2e/fuzz/target/found/$(TARGET) e2e/fuzz/corpus/$(TARGET)
	cd e2e/fuzz && cargo +nightly fuzz run --fuzz-dir . --sanitizer none $(TARGET) target/found/$(TARGET) corpus/$(TARGET) -- -max_len=1500 -len_control=0 -max_total_time=$(or $(SECONDS),60)

lint: ## formatting, clippy, and the dependency policy where cargo-deny is installed
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	@if command -v cargo-deny >/dev/null; then cargo deny --all-features check; else echo "lint: cargo-deny is not installed, dependency policy not checked" >&2; fi

fmt: ## format the tree
	cargo fmt --all

bench: ## measure a release cluster on this machine, beside kube-apiserver's figures
	cargo bench --locked --workspace --bench cluster --bench container --bench pull --bench reach --bench idle --bench tensors

generated: ## refresh the gRPC code from the .proto files
	@truncate --size 0 schemas/src/proto/gen/clawbernetes.v1.rs schemas/src/proto/gen/descriptor.bin
	UPDATE_GENERATED=1 cargo test --locked --package claw-schemas --test generated

ci: ## what the continuous integration runs
	@e2e/deps.sh
	CARGO_INCREMENTAL=0 CLAW_TEST_NEEDS=all $(MAKE) lint test
	CARGO_INCREMENTAL=0 KEEP= e2e/demo.sh </dev/null

clean: ## remove what was built and installed here
	cargo clean
	rm -rf .tools
