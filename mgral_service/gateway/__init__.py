"""HTTP: parse, call one port, render. No torch, no Ray, no Redis."""
