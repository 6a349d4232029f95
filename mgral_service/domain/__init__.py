"""Values, mathematics and ports: numpy, scipy and the standard library only."""
