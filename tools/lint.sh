#!/bin/sh
# Runs the linters from the module in tools/. All of them run, whatever the
# first ones find; the exit status is 1 if any found something.
set -u
cd "$(dirname "$0")/.." || exit 1
status=0

tool() { go tool -modfile=tools/go.mod "$@"; }

step() {
	echo "lint: $1" >&2
	shift
	"$@" || status=1
}

unformatted() {
	files=$(git ls-files --cached --others --exclude-standard '*.go' | xargs -r go tool -modfile=tools/go.mod gofumpt -l)
	[ -z "$files" ] || { echo "not in gofumpt's form (make fmt): $files" >&2; return 1; }
}

# The database of vulnerabilities is a web site: a machine without a way to it
# cannot be told anything, which is no fault of the code.
database=${GOVULNDB:-https://vuln.go.dev}
vulnerabilities() {
	if ! curl -fsS -m 10 -o /dev/null "$database/index/db.json"; then
		echo "lint: govulncheck NOT RUN: $database cannot be reached from this machine; nothing was checked for known vulnerabilities" >&2
		return 0
	fi
	tool govulncheck ./...
}

step 'go vet' go vet ./...
step gofumpt unformatted
step golangci-lint tool golangci-lint run ./...
step govulncheck vulnerabilities
exit $status
