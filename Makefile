# Skiff's menu: `make help`.
SHELL := /bin/bash
LDFLAGS := -s -w
BIN := bin
# Static programs run on every distribution, and are linked in half the time. With the
# same flags everywhere, what one target compiled serves the others.
export CGO_ENABLED ?= 0
export GOFLAGS ?= -trimpath -buildvcs=false
DEMO_DIR := /var/lib/skiff-demo

.PHONY: help
help: ## list the targets
	@awk -F':.*## ' '/^[a-z%-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## build the four programs into bin/
	go build -ldflags '$(LDFLAGS)' -o $(BIN)/ ./cmd/...

.PHONY: print-ldflags
print-ldflags:
	@echo "$(LDFLAGS)"

.PHONY: deb
deb: ## make the Debian packages in dist/; ARCH=arm64 for another machine, REVISION=2 for an upgrade
	ARCH='$(ARCH)' REVISION='$(REVISION)' hack/packages.sh deb

.PHONY: tarball
tarball: ## make an archive with install.sh for other distributions in dist/; ARCH=arm64 for another machine
	ARCH='$(ARCH)' hack/packages.sh tarball

.PHONY: deps
deps: ## install what is missing from Debian: containerd, runc, nftables, conntrack
	hack/deps.sh

.PHONY: up
up: deps build ## run a cluster on this machine; DEMO=1 adds a registry with demo images
	$(BIN)/skiff up --detach $(if $(DEMO),--registry-config-dir $$(hack/registry.sh start $(DEMO_DIR)))

.PHONY: down
down: ## stop it and leave nothing running; its data stays
	$(BIN)/skiff down
	hack/registry.sh stop $(DEMO_DIR)

.PHONY: clean
clean: build ## stop it and remove its data and what was built
	$(BIN)/skiff reset --yes
	hack/registry.sh stop $(DEMO_DIR)
	rm -rf $(DEMO_DIR) $(BIN)

.PHONY: cluster
cluster: deps build ## three hosts on this machine, each with all daemons, to try and to mistreat; WORKERS=N adds workers
	DEMO=1 hack/deps.sh
	hack/cluster.sh up $(WORKERS)

.PHONY: cluster-down
cluster-down: ## take them away, with their data
	hack/cluster.sh down

.PHONY: test
test: ## build and run every test; as root on Linux nothing is skipped
	hack/test.sh

# FOCUS= and SKIP= are regular expressions, PROCS= how many tests run at a time, UPDATE=1 brings
# the baseline up to date.
CONFORMANCE = hack/conformance.sh $(if $(FOCUS),--focus '$(FOCUS)') $(if $(SKIP),--skip '$(SKIP)') $(if $(PROCS),--procs $(PROCS)) $(if $(UPDATE),--update)

.PHONY: conformance
conformance: build ## Kubernetes' own conformance suite on two hosts; FOCUS= and SKIP= choose by name
	$(CONFORMANCE)

.PHONY: conformance-slice
conformance-slice: build ## a short part of it, which the gate runs
	$(CONFORMANCE) --list test/conformance/slice.txt

conformance-%: build ## the tests of one area: -node, -network, -apps, -api, -storage, -auth, -cli, -scheduling, -instrumentation
	$(CONFORMANCE) --area $(if $(filter api,$*),api-machinery,$*)

.PHONY: test-ipvs
test-ipvs: ## test the proxy's modes on another kernel, which has IPVS, in a virtual machine (QEMU); a few minutes
	hack/deps.sh --test --machines
	go run ./test/machines/run -timeout 15m ./proxy/ipvs ./proxy=IPVS ./proxy/policy=IPVS

.PHONY: test-modes
test-modes: ## all of the proxy's tests there; a quarter of an hour
	hack/deps.sh --test --machines
	go run ./test/machines/run -timeout 40m ./proxy/ipvs ./proxy/nftables ./proxy/iptables ./proxy/policy ./proxy

# RUN= chooses, as go test's -run.
MACHINES = go test -count=1 -tags machines -timeout 60m -v ./test/machines/proof -run

.PHONY: machines
machines: ## three machines with systemd, as containers: built by Ansible, then mistreated; packages and tarball; 8 minutes; RUN=TestMachines/plug chooses
	hack/deps.sh --test
	$(MACHINES) '$(or $(RUN),^Test(Machines|Packages|Tarball)$$)'

.PHONY: machines-virtual
machines-virtual: ## the same as virtual machines (QEMU), with a kernel and a clock of their own, for what containers cannot show; 18 minutes
	hack/deps.sh --test --machines
	$(MACHINES) '$(or $(RUN),^TestVirtualMachines$$)'

.PHONY: fleet
fleet: deb ## boot three machines with systemd, have Ansible build a cluster on them, and leave them to look around in
	hack/deps.sh --test
	hack/machines.sh up

.PHONY: fleet-down
fleet-down: ## take them away
	hack/machines.sh down

.PHONY: machines-pods
machines-pods: build ## a Debian machine with systemd and cgroup v2, in QEMU: the tests of cgroups, and pods behind a service of IPVS
	hack/deps.sh --test --machines
	go run ./test/machines/run -timeout 20m -debian -memory 3072 $(ONMACHINE) \
	  -shell 'bash /opt/skiff/up.sh /opt/skiff/bin' ./runtime/cgroup

.PHONY: machines-units
machines-units: build ## the same machine with systemd's units: daemons are restarted, killed and hung while pods run
	hack/deps.sh --test --machines
	go run ./test/machines/run -timeout 30m -debian -memory 3072 -run '^$$' $(ONMACHINE) -shell 'bash /opt/skiff/units.sh /opt/skiff'

# What the scripts in such a machine need.
ONMACHINE = $(foreach p,skiff skiff-agent skiff-control skiff-proxy,-copy $(BIN)/$(p)=/opt/skiff/bin/$(p)) \
  $(foreach f,$(wildcard systemd/*.service systemd/*.slice systemd/*.conf),-copy $(f)=/opt/skiff/$(f)) \
  $(foreach f,box up units,-copy test/machines/$(f).sh=/opt/skiff/$(f).sh)

.PHONY: soak
soak: ## mistreat the store in twelve virtual hours, then three control machines for LENGTH (1h), and check every answer
	hack/soak.sh $(or $(LENGTH),1h)

.PHONY: soak-node
soak-node: ## make and delete pods on one node for LENGTH (10m) while agent, containerd and shims are killed
	hack/deps.sh --test
	go test -count=1 -timeout 0 -v -run TestPodsEndureTheDeathsOfDaemons ./test/endurance -length $(or $(LENGTH),10m)

.PHONY: bench
bench: deps build ## measure pods, API, memory and start-up, as ratios with raw containers
	hack/bench.sh

.PHONY: lint
lint: ## gofmt, go vet and the rules between rooms
	hack/lint.sh

.PHONY: generate
generate: ## make the generated code anew
	hack/generate.sh
