"""The service: it owns the GPU, the queue and every job, and talks gRPC."""
