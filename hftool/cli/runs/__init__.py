"""What commands do once their options are read: load, compute and write."""
