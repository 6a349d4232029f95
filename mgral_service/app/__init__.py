"""Composition and processes: settings, wiring, the service, the driver, experiments."""
