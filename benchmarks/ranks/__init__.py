"""What `bench_ranks` runs: sums over hosts that are network namespaces, joined by shaped links."""
