"""Math and layouts that several ops share."""
