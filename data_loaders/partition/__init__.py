"""Non-IID on purpose: populations dealt anew, shifted or drifting."""
