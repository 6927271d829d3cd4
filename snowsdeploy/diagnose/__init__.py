"""Why a gate fails: where values part, and which layers cost accuracy."""
