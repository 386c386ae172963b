"""Private and public data of both kinds: images and text, read from files and made into what a model takes."""
