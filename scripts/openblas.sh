#!/usr/bin/env bash
# On Linux, mlx's CPU wheel multiplies matrices some forty times faster with OpenBLAS preloaded.
# Installs it where that needs no password, else prints what to do. Never fails.
set -u
[ "$(uname -s)" = Linux ] || exit 0
found() { find /usr/lib /usr/lib64 /lib -name 'libopenblas.so.0' 2>/dev/null | grep -q .; }
found && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
	echo "Installing OpenBLAS (libopenblas0), which makes training on a CPU much faster …"
	{ apt-get install -qq -y libopenblas0 || { apt-get update -qq && apt-get install -qq -y libopenblas0; }; } \
		>/dev/null 2>&1
fi
found || echo "OpenBLAS is not installed: training on this CPU will be slow. On Debian or Ubuntu: sudo apt-get install libopenblas0"
exit 0
