"""What is measured on exported files: parity, accuracy, latency, profiles, compilation."""
