"""What each part of personalization buys on a language model."""
