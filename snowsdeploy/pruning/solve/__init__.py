"""One reconstruction: a window's objective and derivatives, where Newton starts, its preconditioner and steps."""
