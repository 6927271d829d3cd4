"""Windows, the reconstruction objective, the layer schedule, the whole-model loop."""
