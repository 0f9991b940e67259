"""drivetrain trains vision-language models to act: one path from pixels to controls."""

__version__ = "0.1.0"
