.DEFAULT_GOAL := help

PREFIX ?= /usr/local
CARGO_TARGET_DIR ?= target
# Debian's cargo and sbin are not on everyone's PATH.
export PATH := $(PATH):$(or $(CARGO_HOME),$(HOME)/.cargo)/bin:/usr/sbin:/sbin

# Network namespaces and eBPF need root; compiling does not, and stays with the caller.
SUDO := $(if $(filter-out 0,$(shell id -u)),sudo -E)
ifdef SUDO
export CARGO_TARGET_$(shell uname -m | tr a-z A-Z)_UNKNOWN_LINUX_GNU_RUNNER := $(SUDO)
endif

.PHONY: help
help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

.PHONY: demo
demo: ## set up what is missing, build, and balance real connections in a lab of network namespaces
	@.ci/toolchain demo
	@cargo build --locked --package portico
	@$(SUDO) $(CARGO_TARGET_DIR)/debug/portico demo $(ARGS)

# The next version, for tests of upgrades, is built before others wait with deadlines; those tests would build it, too.
.PHONY: test
test: ## set up what is missing, and run every test
	@.ci/toolchain test
	@cargo build --locked --package portico --features next-schema --bin portico-next
	cargo test --locked --no-fail-fast $(ARGS)

.PHONY: build
build: ## the release binary, target/release/portico
	@.ci/toolchain build
	cargo build --locked --release --package portico

# The eBPF crates are linted for the host: their panic handler needs panic=abort there, and clippy must be as old as the
# rustc it reads core of, which the one for eBPF may not be.
.PHONY: lint
lint: ## formatting, clippy, scripts and deploy/
	@.ci/toolchain lint
	cargo fmt --all --check
	cargo clippy --locked --all-targets -- -D warnings
	CARGO_PROFILE_DEV_PANIC=abort cargo clippy --locked -p portico-xdp -p portico-tc -p portico-sockops -p portico-bench-ebpf -p tables -- -D warnings
	.ci/deploy

.PHONY: bench
bench: ## what Portico costs beside bare XDP, the kernel and rules as kube-proxy's, as text and as a page
	@.ci/toolchain test
	@cargo build --locked --release --package portico --package portico-bench
	@$(SUDO) $(CARGO_TARGET_DIR)/release/portico-bench $(if $(findstring --out,$(ARGS)),,--out $(CARGO_TARGET_DIR)/bench-report) $(ARGS)

.PHONY: install
install: ## copy the release binary to PREFIX/bin (/usr/local/bin); after make build
	install -D -m 755 $(CARGO_TARGET_DIR)/release/portico $(DESTDIR)$(PREFIX)/bin/portico

.PHONY: clean
clean: ## remove what was built
	cargo clean
