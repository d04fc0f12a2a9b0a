"""Parts of `bench_preflight`: models made on the spot, cells of the grid, speeds, validation."""
