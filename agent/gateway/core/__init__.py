"""The decision core of a donor: ``step(state, event) -> (state, effects)``; clocks and chance come in."""
