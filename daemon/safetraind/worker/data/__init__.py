"""The role `inspect`: reads training files in flat memory, and judges and compares their lines."""
