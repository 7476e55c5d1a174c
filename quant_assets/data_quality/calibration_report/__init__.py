"""How good the sentinel is on the desk's own bars: faults put in, and what is found of them."""
