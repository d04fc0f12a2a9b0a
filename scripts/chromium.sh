#!/usr/bin/env bash
# Installs Chromium, which the tests of the live page and of the report need, where that needs no
# password; else prints what to do. Never fails: without a browser those tests are skipped.
set -u
python=${PYTHON:-.venv/bin/python}
found() {
	for name in chromium chromium-browser google-chrome google-chrome-stable; do
		command -v "$name" >/dev/null && return 0
	done
	"$python" -m tests.browser >/dev/null 2>&1 # playwright's own
}
apt() { DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends chromium fonts-dejavu-core; }

found && exit 0
echo "Installing Chromium, for the tests in a browser …"
if [ "$(uname -s)" = Linux ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
	{ apt || { apt-get update -qq && apt; }; } >/dev/null 2>&1
else
	"$python" -m playwright install chromium >/dev/null 2>&1
fi
found || echo "Chromium is not installed: the tests in a browser will be skipped. On Debian or Ubuntu: sudo apt-get install chromium; elsewhere: .venv/bin/playwright install chromium"
exit 0
