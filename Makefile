# Linkspan: `make help` lists the targets.

GO       ?= go
TOOL     := $(GO) tool -modfile=tools/go.mod
PKGS     ?= ./...
FUZZTIME ?= 10s
BENCH    ?= .
SHIM     := runtime/shim/linkspan-shim
# Clients take a version apart at its dots, so one without a tag has some as well.
VERSION  ?= $(shell git describe --tags --dirty 2>/dev/null || echo 0.0.0-$$(git describe --always --dirty 2>/dev/null || echo unknown))
LDFLAGS  := -s -w -X main.version=$(VERSION)
DEBS     := bind9-dnsutils dnsmasq-base nftables iptables iproute2 bridge-utils iputils-ping strace ufw firewalld dbus curl ca-certificates python3 jq procps util-linux busybox-static docker.io gcc libc6-dev python3-docker docker-compose etcd-server tcpdump

export CGO_ENABLED ?= 0

.DEFAULT_GOAL := build
.PHONY: build shim compose run test race fuzz golden lint fmt bench micro deps docs ci help

build: shim ## build bin/linkspan, static
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/linkspan ./cmd/linkspan

# The shim is a program of its own that the main one carries inside.
shim:
ifneq ($(wildcard cmd/linkspan-shim/*.go),)
	@mkdir -p $(dir $(SHIM))
	$(GO) build -trimpath -ldflags '-s -w' -o $(SHIM) ./cmd/linkspan-shim
endif

# The tests' second Compose is Docker's, from its Go module.
compose: bin/docker-compose-v2 ## build Compose v2, which the tests call

bin/docker-compose-v2: tools/compose/go.mod
	$(GO) build -C tools/compose -ldflags '-s -w' -o $(CURDIR)/$@ github.com/docker/compose/v2/cmd

run: build ## run two containers on a network of their own that reach each other by name
	LINKSPAN=bin/linkspan sh docs/run.sh

test: deps build compose ## install what the tests need, run them all on the real kernel; a skip without a stated reason fails, and what fails is run once more, alone
	@test "$$(id -u)" = 0 || { echo 'make test: the tests make namespaces and links: run as root' >&2; exit 1; }
	CGO_ENABLED=1 $(GO) test -race -timeout 45m -json $(PKGS) | CGO_ENABLED=1 $(GO) run -C tools ./testsum -skips skips.txt -dir .. $(GO) test -race -timeout 45m

race: build ## run the tests with the race detector, installing nothing
	CGO_ENABLED=1 $(GO) test -race -timeout 45m $(PKGS)

fuzz: shim ## run every fuzz target for FUZZTIME each
	@grep -rEo --include='*_test.go' '^func Fuzz\w+' . | sed 's,\(.*\)/[^/]*:func ,\1 ,' | sort -u | while read -r pkg target; do \
		echo "$$pkg $$target"; $(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) "$$pkg" || exit 1; done

golden: shim ## write the golden files anew; look at the difference before committing it
	@pkgs=$$(grep -rlE --include='*_test.go' 'flag\.Bool\("update"' . | xargs -r -n1 dirname | sort -u); \
		if [ -n "$$pkgs" ]; then $(GO) test $$pkgs -update; fi

lint: shim ## vet, golangci-lint, gofumpt, govulncheck
	sh tools/lint.sh

fmt: ## format all Go files
	$(TOOL) gofumpt -w $$(git ls-files '*.go')

bench: build ## measure the daemon beside the bare kernel and docker.io; BENCH chooses cases
	$(GO) test -v -count=1 -timeout 60m -p 1 ./bench/... -full -only '$(BENCH)'

micro: shim ## run the benchmarks of single packages
	$(GO) test -run '^$$' -bench '$(BENCH)' -benchmem $(PKGS)

deps: ## install by apt what the tests need
	@DEBS='$(DEBS)' sh tools/deps.sh

docs: ## list the packages' lessons; serve them with `go doc -http`
	@$(GO) list -f '{{.ImportPath}}: {{.Doc}}' ./...

ci: ## what the build machine runs
	.ci/run

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
