# Petrel. `make help` lists the targets; each sets up what it needs on a Debian-family machine.

SHELL   := /bin/bash
GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X petrel.dev/petrel/internal/buildinfo.version=$(VERSION)
# Without it grpc's tracing page is linked in, and with it text/template (docs/adr/0002-binary-size.md).
TAGS    := grpcnotrace
# containerd, its shim and runc travel inside (docs/adr/0011-single-binary.md). EMBED=no leaves them out, for machines without a C
# compiler: agents then use those in the PATH.
EMBED   ?= yes
ifeq ($(EMBED),yes)
BUILDTAGS := $(TAGS),embedded
PROGRAMS  := programs
else
BUILDTAGS := $(TAGS)
# What agents use then. Debian's containerd package starts a service of its own, which test/setup.sh keeps from starting.
SYSTEM    := containerd:containerd runc:runc
endif
SUDO    := $(shell [ $$(id -u) -eq 0 ] || echo sudo)

export CGO_ENABLED = 0

.DEFAULT_GOAL := help
.PHONY: help build programs kubectl demo test e2e lint check reference bench weather hostile race conformance operators boards fuzz cross reproduce emulate clean setup setup-programs setup-cross setup-release setup-emulate setup-test setup-race setup-conformance setup-boards

help: ## list the targets
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: $(PROGRAMS) ## build bin/petrel, static, for this machine, with all that runs containers inside (EMBED=no: without)
	@mkdir -p bin
	$(GO) build -tags '$(BUILDTAGS)' -ldflags '$(LDFLAGS)' -o bin/petrel ./cmd/petrel

programs: setup-programs ## build containerd, shim and runc for this machine, as `make build` puts them inside
	GO=$(GO) SECCOMP=system cross-build/programs.sh $$($(GO) env GOARCH)

demo: setup build ## hub, agent and examples/hello.yaml as real containers, shown and cleaned up
	@$(SUDO) test/demo/demo.sh bin/petrel

# Memory and work at rest are measured on a machine at rest: an agent beside other work has more threads, which it keeps. Then the packages
# that take longest come first: their tests mostly wait, and the others run beside them.
test: setup-test setup-conformance setup-release setup-emulate build kubectl lint ## all tests, real containerd and real clients included
	$(SUDO) env "PATH=$$PATH" "HOME=$$HOME" PETREL_BIN=$(CURDIR)/bin/petrel PETREL_KUBECTL=$(CURDIR)/bin/kubectl CGO_ENABLED=0 \
	  $(GO) test -tags '$(BUILDTAGS)' -count=1 -timeout 5m -run '^TestIdleBudgets$$' ./test/e2e
	$(SUDO) env "PATH=$$PATH" "HOME=$$HOME" PETREL_BIN=$(CURDIR)/bin/petrel PETREL_KUBECTL=$(CURDIR)/bin/kubectl CGO_ENABLED=0 \
	  $(GO) test -tags '$(BUILDTAGS)' -count=1 -timeout 19m -p 3 -skip '^TestIdleBudgets$$' ./test/e2e ./test/hostile $$($(GO) list ./... | grep -vE '/test/(e2e|hostile)$$')
	cd test/conformance && $(SUDO) env "PATH=$$PATH" "HOME=$$HOME" $(GO) run . -petrel $(CURDIR)/bin/petrel -short
	cd test/operators && PETREL_BIN=$(CURDIR)/bin/petrel PETREL_KUBECTL=$(CURDIR)/bin/kubectl $(GO) test -short -count=1 -timeout 14m ./...
	cd cross-build/pack && $(SUDO) env "PATH=$$PATH" "HOME=$$HOME" CGO_ENABLED=0 $(GO) test -count=1 -timeout 14m ./...
	GO=$(GO) SHORT=1 PACKAGES=./internal/wire cross-build/emulate.sh linux-arm64 linux-armv6

# The kubectl of the tests, which they build each for itself where PETREL_KUBECTL names none. It refuses to compare versions when its own is none.
kubectl: KUBERNETES = $(shell sed -n 's/^const Kubernetes = "\(.*\)"/\1/p' internal/buildinfo/buildinfo.go)
kubectl:
	@mkdir -p bin
	$(GO) build -tags '$(TAGS)' -ldflags '-s -w -X k8s.io/component-base/version.gitVersion=$(KUBERNETES)' -o bin/kubectl ./test/tools/kubectl

lint: ## go vet, staticcheck and the rule tests
	$(GO) vet -tags '$(TAGS)' ./...
	$(GO) tool staticcheck -tags '$(TAGS)' ./...
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { echo "not gofmt-ed:"; gofmt -l $$(git ls-files '*.go'); exit 1; }
	$(GO) test -count=1 ./internal/rules

check: lint test ## lint and test

reference: ## write docs/cli.md again, which is made from the commands
	$(GO) run ./cmd/petrel docs --markdown docs/cli.md

bench: setup-test build ## figures of store, API, scheduler, proxy and pod start; docs/performance.md has them
	$(SUDO) env "PATH=$$PATH" "HOME=$$HOME" PETREL_BIN=$(CURDIR)/bin/petrel PETREL_BENCH=1 CGO_ENABLED=0 bash -euc '\
	  $(GO) test -run "^$$" -bench . -benchtime 1s -timeout 10m -p 1 ./sqlstore/sqlite ./hub/control/schedule ./svcproxy ./test/bench; \
	  $(GO) test -count=1 -v -run "TestPodStart|TestIdleBudgets|TestBinarySize" ./test/e2e; \
	  $(GO) test -count=1 -v -timeout 20m ./test/hollow'

e2e: setup-test build ## all tests of the whole binary on simulated machines, those that take long too
	$(SUDO) env "PATH=$$PATH" "HOME=$$HOME" PETREL_BIN=$(CURDIR)/bin/petrel PETREL_LONG=1 CGO_ENABLED=0 $(GO) test -tags '$(BUILDTAGS)' -count=1 -timeout 25m ./test/e2e

weather: setup-test build ## power cuts, links that go and come, dark and cloned nodes, hostile peers
	$(SUDO) env "PATH=$$PATH" "HOME=$$HOME" PETREL_BIN=$(CURDIR)/bin/petrel CGO_ENABLED=0 $(GO) test -count=1 -timeout 19m -p 3 ./test/e2e ./test/link

# Every test that docs/security.md names: what is in test/hostile, and, by package, what is beside the part that it attacks.
hostile: setup-test build ## the attacks of docs/security.md at full size: pods, nodes, strangers, clients against a real hub and agent
	$(SUDO) env "PATH=$$PATH" "HOME=$$HOME" PETREL_BIN=$(CURDIR)/bin/petrel PETREL_HOSTILE=1 CGO_ENABLED=0 test/hostile/hostile.sh $(GO)

# All but what works on a real containerd, whose tests wait for other processes. The detector needs cgo, and so a C compiler.
# Left out are tests of memory and of pace: under the detector a program needs several times of both.
UNRACED := TestMemoryAndIdleness|TestRotationAndFollow
race: setup-test setup-race ## the tests under Go's race detector; long: sqlstore alone takes five minutes on two cores (PKG=./svcproxy/...: one part)
	$(SUDO) env "PATH=$$PATH" "HOME=$$HOME" CGO_ENABLED=1 $(GO) test -race -count=1 -timeout 20m -skip '$(UNRACED)' \
	  $(or $(PKG),./internal/... ./sqlstore/... ./svcproxy/... ./sched/... ./hub/... ./test/link $$($(GO) list ./edgeagent/... | grep -vE '/(edgeagent|ctrd)$$'))

# FOCUS=regexp, SIG=node, PROCS=n choose; UPDATE=1 adds what passes to the list, and after a whole run writes docs/conformance.md.
conformance: setup-conformance build ## Kubernetes' conformance suite against a hub and two agents, compared with test/conformance/passing.txt
	cd test/conformance && $(SUDO) env "PATH=$$PATH" "HOME=$$HOME" $(GO) run . -petrel $(CURDIR)/bin/petrel -focus '$(FOCUS)' -sig '$(SIG)' -procs $(or $(PROCS),10) $(if $(UPDATE),-update) $(if $(KEEP),-keep)

operators: build ## helm, a controller-runtime operator and operators of the field against a hub; all but the last are in `make test`
	cd test/operators && PETREL_BIN=$(CURDIR)/bin/petrel $(GO) test -v -count=1 -timeout 30m ./...

# qemu by name, kmod for depmod, e2fsprogs for mke2fs: all of them for building and starting the guests.
boards: setup-cross setup-boards ## hub, agent and real containers on emulated boards: cgroup v2, arm64, systemd, a mixed fleet; some 20 minutes a board (BOARDS=name: one)
	@set -e; for b in $${BOARDS:-$$(grep -v '^#' cross-build/board/boards | cut -d' ' -f1)}; do cross-build/board/board.sh $$b; done

fuzz: ## every fuzz target for ten seconds
	@set -e; for p in $$($(GO) list ./...); do for f in $$($(GO) test -list '^Fuzz' $$p 2>/dev/null | grep '^Fuzz' || true); do \
	  echo "== $$p $$f"; $(GO) test -run '^$$' -fuzz "^$$f$$" -fuzztime 10s $$p; done; done

# TARGETS="linux-arm64 windows-amd64" chooses; without it all of cross-build/targets. SIGN_KEY=FILE signs (SIGN_PASSWORD is its password),
# BASE_URL=URL is where install.sh will find the release.
cross: setup-cross ## build dist/: every target of cross-build/targets with packages, archives, bills of materials, digests, and check it
	GO=$(GO) cross-build/cross.sh $(VERSION) $(TARGETS)
	cd cross-build/pack && PETREL_DIST=$(CURDIR)/dist $(GO) test -count=1 -v -run 'TestDownloadBudget|TestBinaries|TestMaterials|TestArchives|TestPackages|TestSums' .

# The short form, which compiles only once, is QUICK=1.
reproduce: setup-cross ## build two targets twice, in other places, at other times, without a cache, and compare all bytes (TARGETS=, QUICK=1)
	GO=$(GO) QUICK=$(QUICK) cross-build/reproduce.sh $(TARGETS)

# The long form builds petrel for each architecture; QUICK=1 has the programs inside only, and `make test` the wire format's tests.
emulate: setup-cross setup-emulate ## what `make cross` makes, under qemu's user emulation: versions, and tests of store, wire and scheduler (TARGETS=, QUICK=1)
	GO=$(GO) QUICK=$(QUICK) cross-build/emulate.sh $(TARGETS)

clean: ## remove what was built
	rm -rf bin dist

# What a fresh machine misses. Only missing packages are installed, and nothing is started.
setup:
	@test/setup.sh $(SYSTEM) ip:iproute2

# A C compiler with its library for runc, and what builds libseccomp.
setup-programs:
	@test/setup.sh gcc:gcc /usr/include/stdio.h:libc6-dev /usr/include/seccomp.h:libseccomp-dev pkg-config:pkg-config zstd:zstd

setup-cross: setup-programs
	@test/setup.sh make:make gperf:gperf curl:curl minisign:minisign
	@test/setup.sh aarch64-linux-gnu-gcc:gcc-aarch64-linux-gnu /usr/aarch64-linux-gnu/include/stdio.h:libc6-dev-arm64-cross \
	  arm-linux-gnueabi-gcc:gcc-arm-linux-gnueabi /usr/arm-linux-gnueabi/include/stdio.h:libc6-dev-armel-cross \
	  riscv64-linux-gnu-gcc:gcc-riscv64-linux-gnu /usr/riscv64-linux-gnu/include/stdio.h:libc6-dev-riscv64-cross

# What the tests of packages, signatures and install.sh need.
setup-release:
	@test/setup.sh minisign:minisign openssl:openssl mmdebstrap:mmdebstrap busybox:busybox-static curl:curl wget:wget zstd:zstd dash:dash unshare:util-linux

setup-emulate:
	@test/setup.sh qemu-aarch64-static:qemu-user-static

setup-race:
	@test/setup.sh gcc:gcc

setup-boards:
	@test/setup.sh qemu-system-x86_64:qemu-system-x86 qemu-system-aarch64:qemu-system-arm depmod:kmod mke2fs:e2fsprogs busybox:busybox-static

setup-test:
	@test/setup.sh $(SYSTEM) ip:iproute2 busybox:busybox-static mosquitto:mosquitto sqlite3:sqlite3 zstd:zstd

setup-conformance:
	@test/setup.sh $(SYSTEM) ip:iproute2 busybox:busybox-static mmdebstrap:mmdebstrap
