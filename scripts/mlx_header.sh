#!/usr/bin/env bash
# On a CPU, MLX compiles each new kernel with g++, and most of that time goes into reading one header.
# Precompiles the header in the virtual environment: a kernel then takes about a third of the time.
# g++ ignores the result where its version or options differ. Never fails. ($1: the environment's bin)
set -u
[ "$(uname -s)" = Linux ] && command -v g++ >/dev/null || exit 0
include=$("$1/python" -c 'import pathlib, mlx; print(pathlib.Path(list(mlx.__path__)[0]) / "include")') || exit 0
header=$include/mlx/backend/cpu/compiled_preamble.h
[ -f "$header" ] || exit 0
[ "$header.gch" -nt "$header" ] && exit 0
# The options are those of MLX's own call (mlx/backend/cpu/jit_compiler.cpp).
g++ -std=c++17 -O3 -Wall -fPIC -x c++-header -I "$include" "$header" -o "$header.gch.$$" 2>/dev/null &&
	mv "$header.gch.$$" "$header.gch"
rm -f "$header.gch.$$"
exit 0
