"""Where samples come from: each file opens one real format and gives `Episodes`."""
