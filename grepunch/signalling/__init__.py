"""Control messages inside sealed frames: a small reliable stream and what travels in it."""
