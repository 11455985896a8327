"""Evidence that the gate works: faults, power, peers, papers, and the training of the pocket models."""
