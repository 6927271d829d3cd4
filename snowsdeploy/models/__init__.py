"""Any model source to one ATen program, and which of its layers are pruned."""
