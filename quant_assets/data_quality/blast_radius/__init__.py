"""What a bar reached: everything that rests on it, and how far signals move without it."""
