"""The parts of ../compare: what it needs, whom it measures, how, and how it tells."""
