"""Who can show how: scripted drivers, privileged state in, action out."""
