"""Channel permutation: an order of channels that lets an N:M mask keep more, with the model's function unchanged."""
