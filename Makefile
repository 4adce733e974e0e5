# Everything from nothing: Go, make and git are all that has to be there.
MAKEFLAGS += --no-print-directory
.NOTPARALLEL:
.PHONY: help build run test race lint fmt fmt-check generate generated breaking layering brokers peers bench fuzz ci

TOOL   := go tool -modfile=tools/go.mod
RABBIT := go run ./test/brokers/run --
REPORT := go run ./test/report
RACE   := core/bridge core/desk core/wire core/network core/broker core/plugin core/process core/supervise core/embedded core/discovery core/library plugins

help: ## show this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-10s %s\n", $$1, $$2 }' Makefile

build: ## build bin/flogate
	CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o bin/ ./cmd/flogate

run: build ## run the demo site with a broker of its own
	@echo 'press the button from another terminal: bin/flogate send --broker mqtt://127.0.0.1 --queue button/pressed --json true'
	bin/flogate --config configs/demo.hcl

test: brokers ## run all tests, on real brokers
	$(RABBIT) $(REPORT) -in . -in 'examples/*' -- -timeout 30m ./...

race: brokers ## run the tests of what is concurrent with the race detector
	test/install gcc
	CGO_ENABLED=1 $(RABBIT) $(REPORT) -- -race -timeout 30m $(RACE:%=./%/...)

lint: ## look for mistakes
	$(TOOL) golangci-lint run
	$(TOOL) buf lint

fmt: ## format everything
	$(TOOL) gofumpt -l -w .
	$(TOOL) buf format -w

fmt-check: ## fail if something is not formatted
	@files=$$($(TOOL) gofumpt -l .) && test -z "$$files" || { echo "not formatted: $$files"; exit 1; }
	$(TOOL) buf format --diff --exit-code

generate: ## generate the code for proto/
	$(TOOL) buf generate

generated: generate ## fail if the generated code was out of date
	git diff --exit-code -- proto

breaking: ## fail if proto/ breaks its users
	tools/breaking

layering: ## fail if a package imports what it may not
	go test -count=1 . # what go list reads is not in the cache's key

brokers: ## install the brokers that the tests need, where they are missing
	@test/install mosquitto mosquitto_pub rabbitmq-server

peers: brokers ## test against the programs that others have written
	test/install node npm
	$(RABBIT) $(REPORT) -- -tags peers -timeout 30m ./test/peers/...

bench: brokers ## compare speed and memory side by side
	$(RABBIT) go run ./test/bench $(ARGS)

fuzz: ## run every fuzz target, FUZZTIME each
	test/fuzz $(FUZZTIME)

ci: fmt-check lint generated breaking layering test race peers ## everything that has to pass
