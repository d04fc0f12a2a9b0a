"""The gRPC services, one file each. A handler validates, converts messages and delegates."""
