"""The gRPC face: one file a service. Each validates, translates and hands on."""
