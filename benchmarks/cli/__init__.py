"""The parts of `benchmarks.bench_cli`."""
