# Operation D-Bus: from a clone to an answer. `make help` lists the targets.
#
# Why one place for all of it: RocksDB is 20 minutes of C++ on two cores, compiled anew for every
# cargo profile, target directory and compiler setting. So every target here uses the same: the
# release profile, the whole workspace, a target directory outside the clone, ccache if it is
# there. To use cargo by hand with the same settings: eval "$(make -s env)".
#
# Everything that is downloaded or built lies outside the clone, in two directories:
#   $(DATA)    ONNX Runtime and the model
#   $(CACHE)   build results, the demonstration's input and store

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

CACHE := $(or $(filter /%,$(XDG_CACHE_HOME)),$(HOME)/.cache)/op-dbus
DATA := $(or $(filter /%,$(XDG_DATA_HOME)),$(HOME)/.local/share)/op-dbus
DEMO := $(CACHE)/demo

export CARGO_TARGET_DIR ?= $(CACHE)/target

# Text that a recipe's shell expands. Not earlier: `make setup` may have just installed ccache,
# and a build without it would be repeated from the start by the first one with it.
COMPILERS = if command -v ccache >/dev/null; \
	then export CC="$${CC:-ccache cc}" CXX="$${CXX:-ccache c++}"; fi
CARGO = $(COMPILERS); cargo
EVERYTHING := --release --workspace --locked

OP_DBUS := $(CARGO_TARGET_DIR)/release/op-dbus

.PHONY: help
help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' Makefile | expand -t 14

.PHONY: setup
setup: ## install what is missing: system packages, ONNX Runtime, the embedding model
	@.ci/system-packages
	@engine/model/install.py

.PHONY: build
build: ## compile everything; prints where op-dbus is
	@$(CARGO) build $(EVERYTHING)
	@echo $(OP_DBUS)

.PHONY: test
test: setup $(DEMO)/packages.jsonl ## run all tests; sets up what they need
	@$(CARGO) test $(EVERYTHING)

.PHONY: lint format clippy doc
lint: format clippy doc ## check formatting, lints and documentation

format:
	@cargo fmt --all --check

clippy:
	@$(CARGO) clippy $(EVERYTHING) --all-targets -- -D warnings
	@$(CARGO) clippy --release --locked -p op-dbus-engine --no-default-features -- -D warnings

doc: export RUSTDOCFLAGS = -D warnings
doc:
	@$(CARGO) doc $(EVERYTHING) --no-deps

.PHONY: run
run: ## set up, build, index D-Bus interfaces and 6,000 packages, ask three questions
	@$(MAKE) --no-print-directory setup
	@$(MAKE) --no-print-directory build
	@$(MAKE) --no-print-directory demo

.PHONY: run-all
run-all: ## the same with all packages of Debian
	@$(MAKE) --no-print-directory run PACKAGES=$(DEMO)/packages.jsonl

# The demonstration proper. Each command is shown as it can be typed.
define show_and_run
@echo '$$ $(1)'
@$(1)

endef
PACKAGES ?= $(DEMO)/packages-slice.jsonl
OPEN := $(OP_DBUS) --store $(DEMO)/store

.PHONY: demo
demo: $(DEMO)/interfaces $(DEMO)/packages.jsonl
	$(call show_and_run,$(OPEN) index $(DEMO)/interfaces --collection dbus)
	$(call show_and_run,$(OPEN) index $(PACKAGES) --collection packages)
	$(call show_and_run,$(OPEN) query "compress a directory" -k 5)
	$(call show_and_run,$(OPEN) query "change the time zone" -k 5)
	$(call show_and_run,$(OPEN) query "restart the network" -k 5)

$(DEMO)/interfaces:
	@cli/demo/collect_interfaces.py $@

# Makes packages-slice.jsonl too, before it.
$(DEMO)/packages.jsonl:
	@cli/demo/list_packages.py $(DEMO)

.PHONY: clean-demo
clean-demo: ## remove the demonstration's input and store
	rm -rf $(DEMO)

.PHONY: clean-data
clean-data: clean-demo ## remove ONNX Runtime and the model as well
	rm -rf $(DATA)/lib $(DATA)/models/all-MiniLM-L6-v2

.PHONY: env
env: ## print the settings as shell commands, for cargo by hand
	@echo 'export CARGO_TARGET_DIR="$(CARGO_TARGET_DIR)"'
	@$(COMPILERS); for name in CC CXX; do \
		eval "value=\$${$$name:-}"; if [ "$$value" ]; then echo "export $$name=\"$$value\""; fi; done
