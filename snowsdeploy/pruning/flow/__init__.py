"""Values on their way through the graph: activations, windows, moments of layers' inputs, and where they lie."""
