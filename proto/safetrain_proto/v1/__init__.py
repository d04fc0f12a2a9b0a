"""Version 1 of the API, protobuf package `safetrain.v1`. `make proto` writes the `*_pb2*` files."""
