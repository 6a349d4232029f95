"""One active learning cycle as a plain function over ports."""
