"""The daemon: processes that keep models in memory and run commands with them."""
