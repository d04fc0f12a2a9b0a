"""The wire contract of safetrain: `.proto` files and, beside them, the code generated from them."""
