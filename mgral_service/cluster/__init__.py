"""Ray: proxies as Tune trials, drivers as jobs, the trained agent as a Serve deployment."""
