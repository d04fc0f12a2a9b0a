"""The parts of `bench_train`: what both trainers are given, and one module for each figure."""
