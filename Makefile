VERSION = $(shell git describe --tags --always --dirty 2>/dev/null)
FUZZTIME = 10s
TORTURE = 5m

.PHONY: build test torture check demo fuzz clean

build:
	go build -trimpath -ldflags '-X main.version=$(VERSION)' -o bin/oxbow ./cmd/oxbow

test:
	go test -race ./...

torture:
	go test -race -count=1 -v -timeout 0 -run '^TestTorture$$' ./cmd/oxbow -torture $(TORTURE) $(SEED:%=-torture.seed %)

check:
	@test -z "$$(gofmt -l .)" || { gofmt -d .; exit 1; }
	go vet ./...
	go run honnef.co/go/tools/cmd/staticcheck@v0.8.2 ./...
	go mod tidy -diff
	go test -run '^TestImports$$' ./cmd/oxbow

demo: build
	bin/oxbow demo

fuzz:
	@set -e; for p in $$(go list ./...); do for f in $$(go test -list '^Fuzz' $$p | grep ^Fuzz); do \
		go test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) $$p; done; done

clean:
	rm -rf bin
