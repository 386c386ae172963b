"""What each part of personalization buys."""
