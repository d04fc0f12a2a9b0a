#!/usr/bin/env bash
# Installs sshd, which the tests of another machine need, where that needs no password; else prints
# what to do. Never fails: without it those tests are skipped.
set -u
found() { PATH=$PATH:/usr/sbin command -v sshd >/dev/null && command -v ssh >/dev/null; }
found && exit 0
if [ "$(uname -s)" = Linux ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
	echo "Installing OpenSSH's server, for the tests of another machine …"
	export DEBIAN_FRONTEND=noninteractive
	install=(apt-get install -qq -y --no-install-recommends openssh-server openssh-client)
	{ "${install[@]}" || { apt-get update -qq && "${install[@]}"; }; } >/dev/null 2>&1
fi
found || echo "sshd is not installed: the tests of another machine will be skipped. On Debian or Ubuntu: sudo apt-get install openssh-server"
exit 0
