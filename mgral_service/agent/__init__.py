"""The agent: an LSTM that scores the pool, and the policy gradient that trains it on any reward."""
